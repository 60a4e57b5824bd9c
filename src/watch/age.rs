//! How long something may wait for its receiver before operators are told.

use crate::directory::Directory;
use crate::domain::Domain;
use crate::store::Waiting;

/// Hours after which what waits is an alarm: those of its route, else the
/// default of its domain and message type.
#[must_use]
pub fn alarm_hours(directory: &Directory, waiting: &Waiting) -> u32 {
    let routes = directory
        .tenant(&waiting.tenant)
        .map(|tenant| &tenant.routes);
    let of_route = routes.into_iter().flatten().filter(|route| {
        // Of a route that ended there may be something left.
        route.to == waiting.party && route.domain == waiting.domain
    });
    of_route
        .filter_map(|route| route.alarm_hours)
        .min()
        .unwrap_or_else(|| default_alarm_hours(waiting.domain, &waiting.message_type))
}

/// Hours after which an undelivered message is an alarm, where its route says
/// nothing.
///
/// A sick report: 24. The employer has to report a safety-net case to UWV on
/// the fourth day of sickness at the latest (Ziektewet, article 38a) and is
/// told by its arbodienst, which itself should hear within a week. A report of
/// day 1 that waits for 24 hours leaves two days, also when the second of them
/// is spent on finding out why.
///
/// An appointment: 24. It may be for the day after next.
///
/// Everything else: 72. Employments, addresses and documents serve the problem
/// analysis of week six; three days late leaves five weeks.
#[must_use]
pub fn default_alarm_hours(domain: Domain, message_type: &str) -> u32 {
    match (domain, message_type) {
        (Domain::Werkgever, "Afspraken") | (_, "Verzuimmeldingen") => 24,
        _ => 72,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sick_report_leaves_two_days_before_the_fourth() {
        let reports = default_alarm_hours(Domain::Arbodienst, "Verzuimmeldingen");
        assert!(24 + reports + 2 * 24 <= 4 * 24);
        assert_eq!(default_alarm_hours(Domain::Werkgever, "Afspraken"), 24);
        assert_eq!(default_alarm_hours(Domain::Werkgever, "Documenten"), 72);
        assert_eq!(
            default_alarm_hours(Domain::Arbodienst, "Dienstverbanden"),
            72
        );
    }
}
