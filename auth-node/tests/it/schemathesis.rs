use crate::Suite;
pub fn add(_: &mut Suite) {}
