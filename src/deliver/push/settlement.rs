//! What an answer means for a message and for its receiver. Pure.

use std::time::Duration;

use super::client::{Answer, Failure};
use super::schedule::{self, Jitter};
use crate::store::{Again, Pushed, Settled, Settlement};

/// Code of a dead letter whose receiver failed for over 72 hours.
const EXHAUSTED: &str = "push_exhausted";
/// Code of a dead letter that its receiver cannot read.
const UNPARSEABLE: &str = "receiver_unparseable";

/// How often a message and its receiver failed before this attempt.
#[derive(Clone, Copy, Debug)]
pub(super) struct History {
    failures: u32,
    refusals: u32,
    tried_for: Duration,
    receiver_failures: u32,
}

impl From<&Pushed> for History {
    fn from(pushed: &Pushed) -> Self {
        Self {
            failures: pushed.failures,
            refusals: pushed.refusals,
            tried_for: pushed.tried_for,
            receiver_failures: pushed.receiver_failures,
        }
    }
}

/// How an attempt is settled that got this answer.
pub(super) fn of(answer: &Answer, history: History, jitter: Jitter) -> Settlement {
    match answer {
        Answer::TakenOver => Settlement::TakenOver,
        Answer::Gone => Settlement::Gone {
            reason: "status_410".to_owned(),
        },
        Answer::Unparseable { status } => {
            let pause = schedule::unparseable_pause(history.refusals + 1, jitter);
            Settlement::Unparseable(pause.map_or_else(
                || Again::Never {
                    code: UNPARSEABLE,
                    reason: format!("status_{status}"),
                },
                Again::After,
            ))
        }
        Answer::Failed(failure) => failed(failure, history, jitter),
    }
}

fn failed(failure: &Failure, history: History, jitter: Jitter) -> Settlement {
    let pause_after = |failures| schedule::pause(failures, jitter, failure.retry_after);
    let failures = history.failures + 1;
    let again = if schedule::is_exhausted(failures, history.tried_for) {
        Again::Never {
            code: EXHAUSTED,
            reason: failure.reason.clone(),
        }
    } else {
        Again::After(pause_after(failures))
    };
    Settlement::Failed {
        again,
        pause: pause_after(history.receiver_failures + 1),
        reason: failure.reason.clone(),
    }
}

/// What became of an attempt, in a word for metrics and traces.
pub(super) fn outcome(settlement: &Settlement, settled: Settled) -> &'static str {
    match (settled, settlement) {
        (Settled::LeaseLost, _) => "lease_lost",
        (_, Settlement::TakenOver) => "taken_over",
        (_, Settlement::Gone { .. }) => "gone",
        (Settled::GivenBack, _) | (_, Settlement::GivenBack) => "given_back",
        (_, Settlement::Unparseable(Again::After(_))) => "unparseable",
        (
            _,
            Settlement::Failed {
                again: Again::After(_),
                ..
            },
        ) => "failed",
        (_, Settlement::Unparseable(_) | Settlement::Failed { .. }) => "dead",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECONDS: fn(u64) -> Duration = Duration::from_secs;

    fn settled(answer: &Answer, history: History) -> Settlement {
        of(answer, history, Jitter::none())
    }

    fn failure(retry_after: Option<Duration>) -> Answer {
        Answer::Failed(Failure {
            reason: "status_503".to_owned(),
            cause: None,
            retry_after,
        })
    }

    const FRESH: History = History {
        failures: 0,
        refusals: 0,
        tried_for: Duration::ZERO,
        receiver_failures: 0,
    };

    #[test]
    fn message_and_receiver_wait_each_by_their_own_count() {
        let history = History {
            failures: 1,
            receiver_failures: 3,
            ..FRESH
        };
        let Settlement::Failed { again, pause, .. } = settled(&failure(None), history) else {
            panic!("it failed");
        };
        assert_eq!(again, Again::After(SECONDS(15)));
        assert_eq!(pause, SECONDS(300));
    }

    #[test]
    fn what_the_receiver_asks_for_holds_for_both() {
        let asked = SECONDS(1000);
        assert_eq!(
            settled(&failure(Some(asked)), FRESH),
            Settlement::Failed {
                again: Again::After(asked),
                pause: asked,
                reason: "status_503".to_owned(),
            }
        );
    }

    #[test]
    fn it_is_given_up_when_it_was_tried_often_and_long_enough() {
        let again = |failures, hours| {
            let history = History {
                failures,
                tried_for: Duration::from_hours(hours),
                ..FRESH
            };
            let Settlement::Failed { again, .. } = settled(&failure(None), history) else {
                panic!("it failed");
            };
            again
        };
        let dead = Again::Never {
            code: EXHAUSTED,
            reason: "status_503".to_owned(),
        };
        assert_eq!(again(77, 72), dead);
        assert!(matches!(again(77, 71), Again::After(_)));
        assert!(matches!(again(1, 200), Again::After(_)));
    }

    #[test]
    fn what_cannot_be_read_is_tried_five_times() {
        let answer = Answer::Unparseable { status: 422 };
        let with = |refusals| {
            let history = History { refusals, ..FRESH };
            settled(&answer, history)
        };
        assert_eq!(with(0), Settlement::Unparseable(Again::After(SECONDS(60))));
        assert!(matches!(with(3), Settlement::Unparseable(Again::After(_))));
        let dead = Again::Never {
            code: UNPARSEABLE,
            reason: "status_422".to_owned(),
        };
        assert_eq!(with(4), Settlement::Unparseable(dead));
    }
}
