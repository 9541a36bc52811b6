//! A short queue that is copied, compared and hashed with the state that it is part of.
use std::hash::{Hash, Hasher};

const CAPACITY: usize = 10;

/// At most [`CAPACITY`] values, first in first out.
#[derive(Clone, Copy, Debug)]
pub struct List<T> {
    items: [Option<T>; CAPACITY],
    length: usize,
}

impl<T: Copy> List<T> {
    /// Panics if the list is full: the bounds of the search are then too wide for this build.
    pub fn push(&mut self, item: T) {
        assert!(self.length < CAPACITY, "a queue of the model is longer than CAPACITY");
        self.items[self.length] = Some(item);
        self.length += 1;
    }

    pub fn pop(&mut self) -> Option<T> {
        let first = self.items[0].take()?;
        self.items.rotate_left(1);
        self.length -= 1;
        Some(first)
    }

    pub fn first(&self) -> Option<T> {
        self.items[0]
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = T> + Clone {
        self.items[..self.length].iter().flatten().copied()
    }
}

impl<T: Copy> FromIterator<T> for List<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        let mut list = Self::default();
        items.into_iter().for_each(|item| list.push(item));
        list
    }
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self { items: [const { None }; CAPACITY], length: 0 }
    }
}

impl<T: PartialEq> PartialEq for List<T> {
    fn eq(&self, other: &Self) -> bool {
        self.items[..self.length] == other.items[..other.length]
    }
}

impl<T: Eq> Eq for List<T> {}

impl<T: Hash> Hash for List<T> {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.items[..self.length].hash(hasher);
    }
}
