//! How one party writes its ids.
//!
//! The same person must have the same id in every message, or the gateway
//! takes an old case for a new one. Normalising twice gives what normalising
//! once gives.

use std::borrow::Cow;

/// Capitals in an id. Only `A-Z` and `a-z` change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Case {
    /// As sent.
    #[default]
    Keep,
    /// Small letters.
    Lower,
    /// Capitals.
    Upper,
}

/// Zeros in front of an id that is all digits. Other ids keep theirs: in a
/// GUID they mean something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LeadingZeros {
    /// As sent.
    #[default]
    Keep,
    /// Removed; one zero stays of nothing but zeros.
    Strip,
    /// Added until the id has this many characters.
    Pad(usize),
}

/// What makes two spellings of an id the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdRule {
    pub(super) trim: bool,
    pub(super) case: Case,
    pub(super) strip: String,
    pub(super) leading_zeros: LeadingZeros,
    pub(super) prefix_remove: String,
    pub(super) suffix_remove: String,
    pub(super) prefix_add: String,
    pub(super) suffix_add: String,
}

impl IdRule {
    /// Why the rule contradicts itself, if it does: a rule that could give
    /// another id when it is applied twice is refused.
    pub(super) fn contradiction(&self) -> Option<&'static str> {
        let removes = !self.prefix_remove.is_empty() || !self.suffix_remove.is_empty();
        let adds = !self.prefix_add.is_empty() || !self.suffix_add.is_empty();
        if removes && adds {
            return Some("a rule either removes or adds a prefix or suffix, not both");
        }
        let affixes = [
            &self.prefix_remove,
            &self.suffix_remove,
            &self.prefix_add,
            &self.suffix_add,
        ];
        if affixes
            .iter()
            .any(|affix| self.shaped(affix) != affix.as_str())
        {
            return Some("a prefix or suffix must itself follow trim, case and strip");
        }
        let digits = |text: &str| text.bytes().any(|byte| byte.is_ascii_digit());
        if self.leading_zeros != LeadingZeros::Keep && affixes.iter().any(|affix| digits(affix)) {
            return Some("a prefix or suffix with digits does not go with leading_zeros");
        }
        None
    }

    /// The one spelling of `text`.
    #[must_use]
    pub fn normalise<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut id = self.shaped(text);
        // Taking something away can uncover more of it.
        loop {
            let length = id.len();
            id = self.shortened(id);
            if id.len() == length {
                break;
            }
        }
        self.lengthened(id)
    }

    /// Space, letters and characters as the rule wants them.
    fn shaped<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut id = Cow::Borrowed(text);
        if !self.strip.is_empty() && id.contains(|c| self.strip.contains(c)) {
            id = Cow::Owned(id.replace(|c| self.strip.contains(c), ""));
        }
        if self.trim && id.trim().len() != id.len() {
            id = Cow::Owned(id.trim().to_owned());
        }
        match self.case {
            Case::Lower if id.bytes().any(|byte| byte.is_ascii_uppercase()) => {
                Cow::Owned(id.to_ascii_lowercase())
            }
            Case::Upper if id.bytes().any(|byte| byte.is_ascii_lowercase()) => {
                Cow::Owned(id.to_ascii_uppercase())
            }
            Case::Keep | Case::Lower | Case::Upper => id,
        }
    }

    fn shortened<'a>(&self, id: Cow<'a, str>) -> Cow<'a, str> {
        let mut rest: &str = &id;
        // An id never becomes empty: all persons without one would be the same.
        rest = some(rest.strip_prefix(self.prefix_remove.as_str())).unwrap_or(rest);
        rest = some(rest.strip_suffix(self.suffix_remove.as_str())).unwrap_or(rest);
        if self.trim {
            rest = some(Some(rest.trim())).unwrap_or(rest);
        }
        if self.leading_zeros == LeadingZeros::Strip && is_digits(rest) {
            let bare = rest.trim_start_matches('0');
            rest = if bare.is_empty() { "0" } else { bare };
        }
        if rest.len() == id.len() {
            return id;
        }
        Cow::Owned(rest.to_owned())
    }

    fn lengthened<'a>(&self, id: Cow<'a, str>) -> Cow<'a, str> {
        if id.is_empty() {
            return id;
        }
        let mut id = match self.leading_zeros {
            LeadingZeros::Pad(width) if id.len() < width && is_digits(&id) => {
                Cow::Owned(format!("{id:0>width$}"))
            }
            LeadingZeros::Keep | LeadingZeros::Strip | LeadingZeros::Pad(_) => id,
        };
        if !id.starts_with(&self.prefix_add) {
            id = Cow::Owned(format!("{}{id}", self.prefix_add));
        }
        if !id.ends_with(&self.suffix_add) {
            id.to_mut().push_str(&self.suffix_add);
        }
        id
    }
}

fn some(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rules() -> impl Strategy<Value = IdRule> {
        let case = prop_oneof![Just(Case::Keep), Just(Case::Lower), Just(Case::Upper)];
        let zeros = prop_oneof![
            Just(LeadingZeros::Keep),
            Just(LeadingZeros::Strip),
            (1_usize..12).prop_map(LeadingZeros::Pad),
        ];
        let affix = "[aB0 -]{0,2}";
        (
            any::<bool>(),
            case,
            "[{} -]{0,2}",
            zeros,
            affix,
            affix,
            any::<bool>(),
        )
            .prop_map(|(trim, case, strip, leading_zeros, prefix, suffix, add)| {
                let mut rule = IdRule {
                    trim,
                    case,
                    strip,
                    leading_zeros,
                    ..IdRule::default()
                };
                if add {
                    (rule.prefix_add, rule.suffix_add) = (prefix, suffix);
                } else {
                    (rule.prefix_remove, rule.suffix_remove) = (prefix, suffix);
                }
                rule
            })
            .prop_filter("contradicts itself", |rule| rule.contradiction().is_none())
    }

    proptest! {
        #[test]
        fn normalising_twice_changes_nothing_more(rule in rules(), text in "[aAbB01 {}-]{0,12}") {
            let once = rule.normalise(&text).into_owned();
            prop_assert_eq!(rule.normalise(&once), once.as_str());
        }

        #[test]
        fn any_text_normalises_once_and_for_all(rule in rules(), text in ".*") {
            let once = rule.normalise(&text).into_owned();
            prop_assert_eq!(rule.normalise(&once), once.as_str());
        }
    }

    #[test]
    fn spellings_of_one_person_meet() {
        let guid = IdRule {
            trim: true,
            case: Case::Lower,
            strip: "{}".to_owned(),
            ..IdRule::default()
        };
        assert_eq!(guid.normalise(" {0A1B-C} "), "0a1b-c");
        let padded = IdRule {
            leading_zeros: LeadingZeros::Pad(8),
            ..IdRule::default()
        };
        assert_eq!(padded.normalise("1234"), "00001234");
        assert_eq!(padded.normalise("A1"), "A1");
        let bare = IdRule {
            leading_zeros: LeadingZeros::Strip,
            prefix_remove: "P".to_owned(),
            ..IdRule::default()
        };
        assert_eq!(bare.normalise("P00012"), "12");
        assert_eq!(bare.normalise("000"), "0");
        assert_eq!(bare.normalise("P"), "P");
    }

    #[test]
    fn an_untouched_id_is_not_copied() {
        let rule = IdRule::default();
        assert!(matches!(rule.normalise("0012"), Cow::Borrowed("0012")));
    }
}
