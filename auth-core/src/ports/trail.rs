//! Where a request has been: the position in its shard's log that covers whatever it wrote or read there.
//!
//! A store leaves it behind, the edge picks it up and hands it to the client, and no rule in between has to know. So no
//! write can be forgotten. Beside the request, like a trace, because it belongs to the way and not to the answer.
use std::cell::Cell;

use crate::domain::ReadPosition;

tokio::task_local! {
    static TRAIL: Cell<Option<ReadPosition>>;
}

/// Runs a request, and tells how far it got if a store has said so. Not across tasks: what it spawns leaves no trail.
pub async fn follow<F: Future>(request: F) -> (F::Output, Option<ReadPosition>) {
    let followed = async {
        let answer = request.await;
        (answer, TRAIL.with(Cell::get))
    };
    TRAIL.scope(Cell::new(None), followed).await
}

/// Whether anybody wants to know. Finding a position out costs a statement after a commit.
#[must_use]
pub fn is_followed() -> bool {
    TRAIL.try_with(|_| ()).is_ok()
}

/// Everything that this request wrote or read so far is covered by `position`. The latest word counts.
pub fn passed(position: ReadPosition) {
    // Nobody follows background work.
    let _unfollowed = TRAIL.try_with(|trail| trail.set(Some(position)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_is_told_the_latest_position_and_nobody_elses() {
        let at = |lsn| ReadPosition { shard: 1, timeline: 1, lsn };
        let one = follow(async {
            assert!(is_followed());
            passed(at(1));
            tokio::task::yield_now().await;
            passed(at(2));
            "one"
        });
        let two = follow(async {
            tokio::task::yield_now().await;
            "two"
        });
        assert_eq!(tokio::join!(one, two), (("one", Some(at(2))), ("two", None)));
        assert!(!is_followed());
        passed(at(3));
    }
}
