//! What a report wants done: `VrwrkCd` and its meaning.

use std::fmt;

/// What the sender wants done with a group of a message.
///
/// The five verbs stand on an old page of sivi.org; which code means which is
/// not published, so the pairing is a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// Melden: something new.
    Report,
    /// Wijzigen: something known goes on, from a date.
    Change,
    /// Corrigeren: an earlier report was wrong.
    Correct,
    /// Verwijderen: an earlier report should not have been.
    Delete,
    /// Synchroniseren: the full present state.
    Synchronise,
}

impl Action {
    /// Every action, in the order of the source.
    pub const ALL: [Self; 5] = [
        Self::Report,
        Self::Change,
        Self::Correct,
        Self::Delete,
        Self::Synchronise,
    ];

    /// The word of mapping files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Report => "report",
            Self::Change => "change",
            Self::Correct => "correct",
            Self::Delete => "delete",
            Self::Synchronise => "synchronise",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which code means which action: each action has one code, no code two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pairing {
    codes: [String; 5],
    confirmed: bool,
}

impl Default for Pairing {
    /// The codes in the order of the verbs: a guess, so not confirmed.
    fn default() -> Self {
        Self {
            codes: ["01", "02", "03", "04", "05"].map(str::to_owned),
            confirmed: false,
        }
    }
}

impl Pairing {
    /// A pairing that somebody set, codes in the order of [`Action::ALL`].
    /// `None` when a code stands twice or is not two digits.
    #[must_use]
    pub fn set(codes: [String; 5]) -> Option<Self> {
        let well_formed = |code: &String| is_two_digits(code);
        let twice = |(at, code): (usize, &String)| codes.iter().skip(at + 1).any(|c| c == code);
        if !codes.iter().all(well_formed) || codes.iter().enumerate().any(twice) {
            return None;
        }
        Some(Self {
            codes,
            confirmed: true,
        })
    }

    /// The action that `code` stands for.
    #[must_use]
    pub fn action(&self, code: &str) -> Option<Action> {
        let pairs = self.codes.iter().zip(Action::ALL);
        let mut found = pairs.filter(|(known, _)| *known == code);
        found.next().map(|(_, action)| action)
    }

    /// The code that stands for `action`.
    #[must_use]
    pub fn code(&self, action: Action) -> &str {
        let mut pairs = self.codes.iter().zip(Action::ALL);
        pairs
            .find(|(_, known)| *known == action)
            .map_or("", |(code, _)| code)
    }

    /// True when a mapping sets the pairing; false for the default guess.
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        self.confirmed
    }
}

impl fmt::Display for Pairing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VrwrkCd")?;
        for (at, action) in Action::ALL.into_iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma} {} {action}", self.code(action))?;
        }
        f.write_str(if self.confirmed {
            " (set by the mapping)"
        } else {
            " (default, not confirmed by the party)"
        })
    }
}

pub(super) fn is_two_digits(code: &str) -> bool {
    code.len() == 2 && code.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_action_is_found_by_its_code() {
        let pairing = Pairing::default();
        for action in Action::ALL {
            assert_eq!(pairing.action(pairing.code(action)), Some(action));
        }
        assert_eq!(pairing.action("06"), None);
    }

    #[test]
    fn one_code_cannot_mean_two_things() {
        let codes = ["01", "02", "03", "04", "01"].map(str::to_owned);
        assert_eq!(Pairing::set(codes), None);
        let codes = ["01", "02", "03", "04", "5"].map(str::to_owned);
        assert_eq!(Pairing::set(codes), None);
    }

    #[test]
    fn the_text_says_whether_anybody_confirmed_it() {
        assert_eq!(
            Pairing::default().to_string(),
            "VrwrkCd 01 report, 02 change, 03 correct, 04 delete, 05 synchronise \
             (default, not confirmed by the party)"
        );
        let set = Pairing::set(["02", "01", "03", "04", "05"].map(str::to_owned)).unwrap();
        assert!(set.to_string().ends_with("(set by the mapping)"));
    }
}
