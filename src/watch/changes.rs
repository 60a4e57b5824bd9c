//! What is to be told, given what is raised and what holds. Pure.

use jiff::Timestamp;

use super::condition::{AlertName, Condition, Observed, may_clear};
use super::message::{Transition, body};
use crate::store::{Alert, AlertChanges};

/// The alert of a condition that was not raised before.
pub(super) fn raise(condition: &Condition, now: Timestamp) -> Alert {
    Alert {
        name: condition.name.as_str().to_owned(),
        subject: condition.subject.to_json(),
        severity: condition.name.severity().as_str().to_owned(),
        since: condition.since,
        number: condition.number,
        raised_at: now,
        told_to: condition.latest,
    }
}

/// What changed from what is `raised` to what `holds`.
pub(super) fn changes(
    raised: Vec<Alert>,
    holds: &[Condition],
    observed: &Observed,
    node: &str,
    now: Timestamp,
) -> AlertChanges {
    let mut changes = AlertChanges::default();
    for condition in holds {
        let text =
            |alert: &Alert, transition| body(alert, transition, condition.name.summary(), now);
        let known = raised.iter().find(|alert| is_about(alert, condition));
        let Some(known) = known else {
            let alert = raise(condition, now);
            let text = text(&alert, Transition::Raised);
            changes.raised.push((alert, text));
            continue;
        };
        let alert = Alert {
            number: condition.number,
            // What is told stays told when the latest of it is gone.
            told_to: condition.latest.max(known.told_to),
            ..known.clone()
        };
        if has_grown(known, condition) {
            let text = text(&alert, Transition::Grown);
            changes.grown.push((alert, text));
        } else if alert != *known {
            changes.renumbered.push(alert);
        }
    }
    let seen = observed.names();
    for alert in raised {
        let holds = holds.iter().any(|condition| is_about(&alert, condition));
        if !holds && may_clear(&alert, &seen, node, now) {
            let known = AlertName::ALL.iter();
            let known = known.copied().find(|name| name.as_str() == alert.name);
            let summary = known.map_or("", AlertName::summary);
            let text = body(&alert, Transition::Cleared, summary, now);
            changes.cleared.push((alert, text));
        }
    }
    changes
}

fn is_about(alert: &Alert, condition: &Condition) -> bool {
    alert.name == condition.name.as_str() && alert.subject == condition.subject.to_json()
}

/// True when something came since the alert was told last. More of it is not
/// enough to see that: one may have gone and another come. Nor is its time:
/// what is on disk a moment later may bear an earlier one.
fn has_grown(alert: &Alert, condition: &Condition) -> bool {
    let Some(latest) = condition.latest else {
        return false;
    };
    let is_later = alert.told_to.is_some_and(|told| latest > told);
    is_later || condition.number > alert.number
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::Subject;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// So many dead letters, the latest of this second.
    fn dead(number: u64, latest: i64) -> Condition {
        Condition {
            name: AlertName::DeadLetter,
            subject: Subject::default().with("party", "arbo"),
            since: at(1),
            number,
            latest: Some(at(latest)),
        }
    }

    fn look(raised: &Alert, holds: &[Condition]) -> AlertChanges {
        let observed = Observed {
            dead: Some(Vec::new()),
            ..Observed::default()
        };
        changes(vec![raised.clone()], holds, &observed, "n", at(100))
    }

    #[test]
    fn an_alert_is_told_again_when_something_came_and_not_when_something_went() {
        let raised = raise(&dead(2, 20), at(50));
        let told = |condition| look(&raised, &[condition]).grown.len();
        assert_eq!(told(dead(2, 20)), 0, "nothing happened");
        assert_eq!(told(dead(1, 10)), 0, "one is gone");
        assert_eq!(told(dead(3, 30)), 1, "one came");
        assert_eq!(told(dead(2, 30)), 1, "one is gone, another came");
        assert_eq!(told(dead(3, 15)), 1, "one came late to disk");

        let grown = look(&raised, &[dead(3, 30)]).grown.remove(0);
        let text: serde_json::Value = serde_json::from_str(&grown.1).unwrap();
        assert_eq!(
            (&text["transition"], &text["again"]),
            (&"raised".into(), &true.into())
        );
        assert_eq!(
            (text["number"].as_u64(), grown.0.told_to),
            (Some(3), Some(at(30)))
        );
        assert_eq!(look(&grown.0, &[dead(3, 30)]), AlertChanges::default());
    }

    #[test]
    fn what_was_told_is_not_told_again_when_the_latest_is_gone() {
        let raised = raise(&dead(2, 20), at(50));
        let fewer = look(&raised, &[dead(1, 10)]);
        assert_eq!(fewer.renumbered[0].told_to, Some(at(20)));
        assert_eq!(
            look(&fewer.renumbered[0], &[dead(1, 10)]),
            AlertChanges::default()
        );
    }

    /// A version of before told it and did not note up to where.
    #[test]
    fn what_is_told_up_to_is_noted_once_without_a_word() {
        let before = Alert {
            told_to: None,
            ..raise(&dead(2, 20), at(50))
        };
        let noted = look(&before, &[dead(2, 20)]);
        assert_eq!(
            (noted.grown.len(), noted.renumbered[0].told_to),
            (0, Some(at(20)))
        );
    }

    #[test]
    fn more_of_what_is_only_counted_is_not_told_again() {
        let counted = |number| Condition {
            latest: None,
            ..dead(number, 0)
        };
        let raised = raise(&counted(2), at(50));
        let changed = look(&raised, &[counted(5)]);
        assert_eq!((changed.grown.len(), changed.renumbered[0].number), (0, 5));
    }
}
