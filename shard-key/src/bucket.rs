//! The unit of placement: one of 16384 buckets.

use std::fmt;

/// One of [`Bucket::COUNT`] buckets. Rows carry it as the first column of every primary key, and it never
/// changes during the life of a row.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket(u16);

impl Bucket {
    /// How many buckets there are: 14 bits, for ever.
    pub const COUNT: usize = 16384;
    /// The bits of a 16-bit value that name a bucket.
    pub(crate) const MASK: u16 = 0x3FFF;

    /// The bucket of that number, or `None` from 16384 on.
    #[must_use]
    pub const fn new(number: u16) -> Option<Self> {
        if number <= Self::MASK { Some(Self(number)) } else { None }
    }

    /// The bucket named by the low 14 bits.
    pub(crate) const fn from_low_bits(bits: u16) -> Self {
        Self(bits & Self::MASK)
    }

    /// Its number, `0..16384`.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }

    /// Its number as an index into a table of [`Bucket::COUNT`] entries.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// Every bucket, in order.
    pub fn all() -> impl DoubleEndedIterator<Item = Self> + ExactSizeIterator {
        (0..=Self::MASK).map(Self)
    }
}

/// The SQL form: `bucket int`.
impl From<Bucket> for i32 {
    fn from(bucket: Bucket) -> Self {
        Self::from(bucket.0)
    }
}

impl From<Bucket> for u16 {
    fn from(bucket: Bucket) -> Self {
        bucket.0
    }
}

/// The number that was no bucket.
impl TryFrom<i32> for Bucket {
    type Error = i32;

    fn try_from(number: i32) -> Result<Self, i32> {
        u16::try_from(number).ok().and_then(Self::new).ok_or(number)
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bucket({})", self.0)
    }
}
