//! Breadth-first search of every state that a model can reach, with the shortest way to each fault.
//!
//! A state is remembered by a 64-bit fingerprint: with five million states, two share one (and one of them is then not
//! looked at) with a probability below 1e-6. The way to a state is remembered as its parent and the number of the step
//! taken there, and is replayed when it is asked for.
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash};

use foldhash::quality::FixedState;

/// What is searched. `Set`s are bit masks over the properties and the milestones that the model numbers.
pub trait Model {
    /// All that the future depends on.
    type State: Copy + Hash;
    /// What happens between two states.
    type Step: Copy;

    /// Where every run begins.
    fn initial(&self) -> Self::State;
    /// Everything that can happen next, in an order that depends on `state` alone.
    fn steps(&self, state: &Self::State, found: &mut Vec<(Self::Step, Self::State)>);
    /// The properties that this step violates.
    fn violated(&self, before: &Self::State, step: Self::Step, after: &Self::State) -> Set;
    /// What must happen on some run, or else the model says nothing.
    fn milestones(&self, before: &Self::State, step: Self::Step, after: &Self::State) -> Set;
    /// Whether recovery is over here.
    fn resolved(&self, state: &Self::State) -> bool;
    /// Whether recovery may count on this step: no fault, no new work.
    fn helps(&self, step: Self::Step) -> bool;
}

/// Bit `n`: the property or milestone number `n`.
pub type Set = u32;

/// When to stop early: [`Outcome::exhausted`] is then false.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub until: Until,
    /// Give up beyond this many states.
    pub states: usize,
}

/// Which violations end a search.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// None: everything is looked at.
    Exhausted,
    /// The first.
    Violated,
    /// One of each of these.
    All(Set),
}

impl Until {
    fn reached(self, violated: Set) -> bool {
        match self {
            Self::Exhausted => false,
            Self::Violated => violated != 0,
            Self::All(wanted) => violated & wanted == wanted,
        }
    }
}

/// What a search found.
#[derive(Debug)]
pub struct Outcome<S> {
    /// Different states reached.
    pub states: usize,
    /// Steps looked at.
    pub steps: usize,
    /// Length of the longest of all shortest ways.
    pub depth: usize,
    /// Whether everything reachable was looked at.
    pub exhausted: bool,
    /// All milestones passed.
    pub milestones: Set,
    /// The shortest way to a first violation of each property, in order of length.
    pub faults: Vec<(u32, Vec<S>)>,
    /// The shortest way to a state from which recovery cannot succeed. Only an exhausted search knows.
    pub stuck: Option<Vec<S>>,
}

/// Searches `model`.
pub fn search<M: Model>(model: &M, limits: Limits) -> Outcome<M::Step> {
    let mut search = Search::new(model);
    let exhausted = search.run(limits);
    let stuck = if exhausted { search.stuck().map(|state| search.way_to(state)) } else { None };
    Outcome {
        states: search.parents.len(),
        steps: search.taken,
        depth: search.depth,
        exhausted,
        milestones: search.milestones,
        faults: search.faults,
        stuck,
    }
}

struct Search<'m, M: Model> {
    model: &'m M,
    hash: FixedState,
    known: HashMap<u64, u32, FixedState>,
    /// Parent and number of the step there, by state.
    parents: Vec<(u32, u16)>,
    resolved: Vec<bool>,
    /// Successors by helpful steps: those of state `i` begin at `helpful_from[i]`.
    helpful: Vec<u32>,
    helpful_from: Vec<u32>,
    waiting: VecDeque<(u32, M::State)>,
    taken: usize,
    depth: usize,
    milestones: Set,
    violated: Set,
    faults: Vec<(u32, Vec<M::Step>)>,
}

impl<'m, M: Model> Search<'m, M> {
    fn new(model: &'m M) -> Self {
        let mut search = Self {
            model,
            hash: FixedState::with_seed(1),
            known: HashMap::with_hasher(FixedState::with_seed(2)),
            parents: Vec::new(),
            resolved: Vec::new(),
            helpful: Vec::new(),
            helpful_from: Vec::new(),
            waiting: VecDeque::new(),
            taken: 0,
            depth: 0,
            milestones: 0,
            violated: 0,
            faults: Vec::new(),
        };
        search.visit(model.initial(), (0, 0));
        search
    }

    /// Whether all states were looked at.
    fn run(&mut self, limits: Limits) -> bool {
        let mut found = Vec::new();
        let (mut in_level, mut level_ends) = (0, self.parents.len());
        while let Some((number, state)) = self.waiting.pop_front() {
            if in_level == level_ends {
                (self.depth, level_ends) = (self.depth + 1, self.parents.len());
            }
            in_level += 1;
            found.clear();
            self.model.steps(&state, &mut found);
            self.helpful_from.push(self.helpful.len() as u32);
            for (nth, (step, after)) in found.iter().enumerate() {
                self.judge(number, (&state, *step, after));
                let next = self.visit(*after, (number, nth as u16));
                if self.model.helps(*step) {
                    self.helpful.push(next);
                }
            }
            if limits.until.reached(self.violated) || self.parents.len() > limits.states {
                return false;
            }
        }
        self.helpful_from.push(self.helpful.len() as u32);
        true
    }

    fn visit(&mut self, state: M::State, parent: (u32, u16)) -> u32 {
        let next = self.parents.len() as u32;
        let number = *self.known.entry(self.hash.hash_one(state)).or_insert(next);
        if number == next {
            self.parents.push(parent);
            self.resolved.push(self.model.resolved(&state));
            self.waiting.push_back((number, state));
        }
        number
    }

    fn judge(&mut self, number: u32, (before, step, after): (&M::State, M::Step, &M::State)) {
        self.taken += 1;
        self.milestones |= self.model.milestones(before, step, after);
        let new = self.model.violated(before, step, after) & !self.violated;
        self.violated |= new;
        for property in (0..Set::BITS).filter(|property| new & (1 << property) != 0) {
            let mut way = self.way_to(number);
            way.push(step);
            self.faults.push((property, way));
        }
    }

    /// The first state from which no helpful steps lead to a resolved one: backwards from the resolved states until
    /// nothing changes.
    fn stuck(&mut self) -> Option<u32> {
        let mut changed = true;
        while changed {
            changed = false;
            for state in (0..self.resolved.len()).rev() {
                let (from, to) = (self.helpful_from[state] as usize, self.helpful_from[state + 1] as usize);
                let leads = |next: &u32| self.resolved[*next as usize];
                if !self.resolved[state] && self.helpful[from..to].iter().any(leads) {
                    self.resolved[state] = true;
                    changed = true;
                }
            }
        }
        self.resolved.iter().position(|resolved| !resolved).map(|state| state as u32)
    }

    fn way_to(&self, state: u32) -> Vec<M::Step> {
        let mut numbers = Vec::new();
        let mut at = state;
        while at != 0 {
            let (parent, nth) = self.parents[at as usize];
            numbers.push(nth);
            at = parent;
        }
        let (mut state, mut found) = (self.model.initial(), Vec::new());
        let replay = numbers.into_iter().rev().map(|nth| {
            found.clear();
            self.model.steps(&state, &mut found);
            let (step, after) = found[usize::from(nth)];
            state = after;
            step
        });
        replay.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A counter that goes up by one or two, and falls into a hole at 7 from which only luck leads out.
    struct Stairs {
        hole: bool,
    }

    impl Model for Stairs {
        type State = u8;
        type Step = u8;

        fn initial(&self) -> u8 {
            0
        }
        fn steps(&self, state: &u8, found: &mut Vec<(u8, u8)>) {
            if *state == 7 && self.hole {
                found.push((9, 0));
            } else if *state < 10 {
                found.extend([(1, state + 1), (2, state + 2)]);
            }
        }
        fn violated(&self, _: &u8, _: u8, after: &u8) -> Set {
            Set::from(*after == 5) << 3
        }
        fn milestones(&self, _: &u8, step: u8, _: &u8) -> Set {
            1 << step
        }
        fn resolved(&self, state: &u8) -> bool {
            *state >= 10
        }
        fn helps(&self, step: u8) -> bool {
            step != 9
        }
    }

    const ALL: Limits = Limits { until: Until::Exhausted, states: 1000 };

    #[test]
    fn every_state_is_reached_and_the_shortest_way_is_told() {
        let outcome = search(&Stairs { hole: false }, ALL);
        assert!(outcome.exhausted && outcome.stuck.is_none());
        assert_eq!((outcome.states, outcome.steps, outcome.depth), (12, 20, 6));
        assert_eq!(outcome.milestones, 0b110);
        assert_eq!(outcome.faults, [(3, vec![1, 2, 2])]);
    }

    #[test]
    fn a_state_that_only_luck_leaves_is_stuck() {
        let outcome = search(&Stairs { hole: true }, ALL);
        assert_eq!(outcome.stuck, Some(vec![1, 2, 2, 2]));
    }

    #[test]
    fn a_search_that_stopped_early_says_so() {
        let first = search(&Stairs { hole: false }, Limits { until: Until::Violated, ..ALL });
        assert!(!first.exhausted && first.faults.len() == 1 && first.stuck.is_none());
        assert!(search(&Stairs { hole: false }, Limits { until: Until::All(0b11 << 3), ..ALL }).exhausted);
        assert!(!search(&Stairs { hole: false }, Limits { states: 4, ..ALL }).exhausted);
    }
}
