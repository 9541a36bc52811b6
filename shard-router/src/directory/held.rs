//! Which offered section to believe: never an older one, never a bad one.

use super::section::{BadSection, Section, Versioned};

/// What became of an offer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It replaced what was held.
    Taken,
    /// It is what was held.
    Same,
    /// It is older than what is held.
    Backwards {
        /// The version held.
        held: i64,
    },
    /// It is bad. `news` once for each version, so that it is logged once.
    Quarantined { error: BadSection, news: bool },
}

/// The last good section, and the version of a bad one that is being ignored.
#[derive(Debug)]
pub(crate) struct Held<T> {
    section: Section,
    good: Option<Versioned<T>>,
    bad_version: Option<i64>,
}

impl<T: PartialEq> Held<T> {
    pub(crate) fn new(section: Section) -> Self {
        Self { section, good: None, bad_version: None }
    }

    pub(crate) fn good(&self) -> Option<&Versioned<T>> {
        self.good.as_ref()
    }

    /// The version held, 0 before there is one.
    pub(crate) fn version(&self) -> i64 {
        self.good.as_ref().map_or(0, |held| held.version)
    }

    /// The newest version that needs no second look unless everything is read again.
    pub(crate) fn seen_version(&self) -> i64 {
        self.bad_version.unwrap_or_else(|| self.version())
    }

    pub(crate) fn is_quarantined(&self) -> bool {
        self.bad_version.is_some()
    }

    pub(crate) fn section(&self) -> Section {
        self.section
    }

    pub(crate) fn offer(&mut self, version: i64, content: Result<T, BadSection>) -> Verdict {
        let held = self.version();
        if version < held {
            return Verdict::Backwards { held };
        }
        match content {
            Err(error) => {
                let news = self.bad_version.replace(version) != Some(version);
                Verdict::Quarantined { error, news }
            }
            Ok(content) => {
                self.bad_version = None;
                let offered = Versioned { version, content };
                if self.good.as_ref() == Some(&offered) {
                    return Verdict::Same;
                }
                self.good = Some(offered);
                Verdict::Taken
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bad() -> BadSection {
        BadSection { section: Section::Keys, reason: "a row".to_owned() }
    }

    #[test]
    fn only_newer_good_sections_are_taken() {
        let mut held = Held::new(Section::Keys);
        assert_eq!(held.offer(3, Ok("a")), Verdict::Taken);
        assert_eq!(held.offer(3, Ok("a")), Verdict::Same);
        assert_eq!(held.offer(2, Ok("old")), Verdict::Backwards { held: 3 });
        assert_eq!(held.good().map(|good| good.content), Some("a"));
    }

    #[test]
    fn a_bad_section_is_news_once_a_version_and_changes_nothing() {
        let mut held = Held::new(Section::Keys);
        held.offer(3, Ok("a"));
        assert_eq!(held.offer(4, Err(bad())), Verdict::Quarantined { error: bad(), news: true });
        assert_eq!(held.offer(4, Err(bad())), Verdict::Quarantined { error: bad(), news: false });
        assert_eq!((held.version(), held.seen_version(), held.is_quarantined()), (3, 4, true));
        assert_eq!(held.offer(5, Err(bad())), Verdict::Quarantined { error: bad(), news: true });
        assert_eq!(held.offer(6, Ok("b")), Verdict::Taken);
        assert!(!held.is_quarantined());
    }
}
