//! Who hashes next: a fixed number of things, lent out one at a time, the best class of waiters first.
//!
//! Strict precedence: as long as somebody of a better class waits, nobody of a lower one gets a turn; within a class who
//! came first. That starves the lowest on purpose, and for no longer than their patience: the caller bounds the wait, and
//! the queue of each class is bounded, so a flood of one class cannot fill the queue of another.
use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// For whom a password is hashed; who comes first when not all can (RELIABILITY's classes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashClass {
    /// A login from a device that this account knows, or somebody who is logged in.
    Known,
    /// Any other login.
    Login,
    /// Registering, and what can be done another time.
    Register,
}

impl HashClass {
    /// The metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Known => "p2",
            Self::Login => "p3",
            Self::Register => "p4",
        }
    }
}

/// Waiters of one class; more could not be served within any sensible patience.
pub(super) const MAX_WAITING: usize = 4096;
const CLASSES: usize = 3;

/// The things and those who wait for one.
pub(super) struct Queue<T>(Arc<Mutex<State<T>>>);

struct State<T> {
    free: Vec<T>,
    /// By class, the best first. Some have given up.
    waiting: [VecDeque<oneshot::Sender<Turn<T>>>; CLASSES],
}

/// One thing, to be used until it is dropped; then it goes to the next.
pub(super) struct Turn<T> {
    thing: Option<T>,
    queue: Queue<T>,
}

/// Too many of that class wait already.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Queue<T> {
    pub fn of(things: Vec<T>) -> Self {
        Self(Arc::new(Mutex::new(State { free: things, waiting: Default::default() })))
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a turn. Who gives up has taken nothing.
    pub async fn turn(&self, class: HashClass) -> Result<Turn<T>, Full> {
        let ticket = {
            let mut state = self.state();
            if let Some(thing) = state.free.pop() {
                return Ok(Turn { thing: Some(thing), queue: self.clone() });
            }
            let waiting = &mut state.waiting[class as usize];
            if waiting.len() >= MAX_WAITING {
                waiting.retain(|waiter| !waiter.is_closed());
            }
            if waiting.len() >= MAX_WAITING {
                return Err(Full);
            }
            let (waiter, ticket) = oneshot::channel();
            waiting.push_back(waiter);
            ticket
        };
        // The sender is dropped only with the queue, of which we hold a part.
        ticket.await.map_err(|_| Full)
    }

    /// To the first of the best class that still waits.
    fn pass_on(&self, thing: T) {
        let mut turn = Turn { thing: Some(thing), queue: self.clone() };
        loop {
            let waiter = {
                let mut state = self.state();
                let next = state.waiting.iter_mut().find_map(VecDeque::pop_front);
                if next.is_none() {
                    state.free.extend(turn.thing.take());
                }
                next
            };
            match waiter.map(|waiter| waiter.send(turn)) {
                None | Some(Ok(())) => return,
                Some(Err(back)) => turn = back,
            }
        }
    }
}

impl<T> Drop for Turn<T> {
    fn drop(&mut self) {
        if let Some(thing) = self.thing.take() {
            self.queue.pass_on(thing);
        }
    }
}

impl<T> Deref for Turn<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.thing.as_ref().expect("only drop takes it")
    }
}

impl<T> DerefMut for Turn<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.thing.as_mut().expect("only drop takes it")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use HashClass::{Known, Login, Register};
    use std::pin::Pin;

    type Waiter<'a> = Pin<Box<dyn Future<Output = Result<Turn<u8>, Full>> + 'a>>;

    /// Asks for a turn; it must not be had at once.
    fn wait(queue: &Queue<u8>, class: HashClass) -> Waiter<'_> {
        let mut waiter: Waiter = Box::pin(queue.turn(class));
        assert!(poll(&mut waiter).is_none());
        waiter
    }

    fn poll(waiter: &mut Waiter) -> Option<Result<Turn<u8>, Full>> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match waiter.as_mut().poll(&mut context) {
            std::task::Poll::Ready(turn) => Some(turn),
            std::task::Poll::Pending => None,
        }
    }

    fn now(queue: &Queue<u8>, class: HashClass) -> Turn<u8> {
        match poll(&mut (Box::pin(queue.turn(class)) as Waiter)) {
            Some(Ok(turn)) => turn,
            _ => panic!("not at once"),
        }
    }

    #[test]
    fn known_devices_come_before_logins_and_those_before_registering() {
        let queue = Queue::of(vec![7]);
        let mut held = Some(now(&queue, Register));
        let order = [Register, Login, Known, Register, Login, Known];
        let mut waiters: Vec<_> = order.iter().map(|class| (*class, wait(&queue, *class))).collect();
        let mut served = Vec::new();
        while !waiters.is_empty() {
            drop(held.take());
            let ready =
                waiters.iter_mut().enumerate().find_map(|(at, (_, waiter))| Some((at, poll(waiter)?)));
            let (at, turn) = ready.expect("one each time");
            held = turn.ok();
            served.push(waiters.remove(at).0);
        }
        assert_eq!(served, [Known, Known, Login, Login, Register, Register]);
        drop(held);
        assert_eq!(*now(&queue, Login), 7);
    }

    #[test]
    fn who_came_first_of_a_class_goes_first() {
        let queue = Queue::of(vec![7]);
        let held = now(&queue, Login);
        let (mut first, mut second) = (wait(&queue, Login), wait(&queue, Login));
        drop(held);
        assert!(poll(&mut second).is_none());
        assert!(poll(&mut first).is_some_and(|turn| turn.is_ok()));
    }

    #[test]
    fn who_gives_up_takes_nothing_even_if_it_was_served_meanwhile() {
        let queue = Queue::of(vec![7]);
        let held = now(&queue, Login);
        let (gone, served) = (wait(&queue, Known), wait(&queue, Known));
        let mut last = wait(&queue, Register);
        drop(gone);
        drop(held);
        assert!(poll(&mut last).is_none(), "the second has it, and does not know yet");
        drop(served);
        assert!(poll(&mut last).is_some_and(|turn| turn.is_ok()));
    }

    #[test]
    fn a_full_class_leaves_room_for_the_others() {
        let queue = Queue::of(vec![7]);
        let _held = now(&queue, Login);
        let mut waiting: Vec<_> = (0..MAX_WAITING).map(|_| wait(&queue, Register)).collect();
        let mut more: Waiter = Box::pin(queue.turn(Register));
        assert!(poll(&mut more).is_some_and(|turn| turn.is_err()));
        drop(wait(&queue, Known));
        drop(waiting.pop());
        drop(wait(&queue, Register));
    }
}
