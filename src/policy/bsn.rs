//! Removal of citizen service numbers: from their element and from every
//! other place where they hide.
//!
//! [`strip`] consumes a document; only the [`Stripped`] one goes on. The
//! numbers exist in memory while it runs and are overwritten when it ends.
//!
//! Source: UAVG art. 46; the eleven-test: [`crate::domain::Bsn`].

use std::collections::HashSet;

use zeroize::Zeroize;

use super::table::BsnParts;
use crate::domain::{Bsn, Code, passes_eleven_test};
use crate::translate::Remark;
use crate::validate::{Document, NodeId, Term};

/// A document without citizen service numbers; only [`strip`] makes one.
#[derive(Debug)]
pub struct Stripped {
    document: Document,
    removed_from: Vec<NodeId>,
}

impl Stripped {
    /// The document.
    #[must_use]
    pub fn document(&self) -> &Document {
        &self.document
    }

    /// The document, to be normalised: nothing can put a number back.
    pub fn document_mut(&mut self) -> &mut Document {
        &mut self.document
    }

    /// The document itself, when the stripping is all that was wanted.
    #[must_use]
    pub fn into_document(self) -> Document {
        self.document
    }

    /// The persons whose number was removed from its element.
    #[must_use]
    pub fn removed_from(&self) -> &[NodeId] {
        &self.removed_from
    }
}

/// Removes every citizen service number from `document`.
///
/// The remarks say where a number was invalid ([`Code::BsnInvalid`]), stood in
/// a key ([`Code::BsnAsKey`]: the message must be refused) or looked like one
/// in a key ([`Code::BsnSuspect`]).
#[must_use]
pub fn strip(mut document: Document, parts: &BsnParts) -> (Stripped, Vec<Remark>) {
    let mut remarks = Vec::new();
    let mut numbers = Numbers::default();
    let mut removed_from = Vec::new();
    let all: Vec<NodeId> = document.descendants(document.root()).collect();

    for node in &all {
        if document.term(*node) != Some(Term::Bsn) {
            continue;
        }
        if Bsn::parse(document.text(*node)).is_err() {
            remarks.push(Remark {
                code: Code::BsnInvalid,
                at: *node,
            });
        }
        if let Some(person) = document.parent(*node) {
            numbers.add(scope_of(&document, person), document.text(*node));
            removed_from.push(person);
        }
    }
    numbers.owned.sort_unstable();
    for node in &all {
        if document.term(*node) == Some(Term::Bsn) {
            document.remove(*node);
        } else if document.element(*node).is_leaf() {
            scan(&mut document, *node, parts, &numbers, &mut remarks);
        }
    }
    (
        Stripped {
            document,
            removed_from,
        },
        remarks,
    )
}

/// What counts as this person's: a document or appointment as a whole, else
/// the person's own group.
fn scope_of(document: &Document, person: NodeId) -> NodeId {
    match document.parent(person) {
        Some(holder)
            if matches!(
                document.term(holder),
                Some(Term::Document | Term::Appointment)
            ) =>
        {
            holder
        }
        _ => person,
    }
}

/// The numbers of a message, by the person that they belong to.
#[derive(Default)]
struct Numbers {
    owned: Vec<(NodeId, u64)>,
    all: HashSet<u64>,
}

impl Numbers {
    fn add(&mut self, scope: NodeId, text: &str) {
        if let Some(value) = value_of(text.bytes().filter(u8::is_ascii_digit)) {
            self.owned.push((scope, value));
            self.all.insert(value);
        }
    }

    /// Is this the number of the person that `node` belongs to? What belongs
    /// to no person is compared with everybody's.
    fn is_own(&self, document: &Document, node: NodeId, value: u64) -> bool {
        if !self.all.contains(&value) {
            return false;
        }
        let mut inside_a_person = false;
        let mut at = Some(node);
        while let Some(scope) = at {
            // Nodes are in document order, and so are their numbers.
            if let Ok(found) = self.owned.binary_search_by_key(&scope, |(scope, _)| *scope) {
                inside_a_person = true;
                if self.owned.get(found).is_some_and(|(_, own)| *own == value) {
                    return true;
                }
            }
            at = document.parent(scope);
        }
        !inside_a_person
    }
}

impl Drop for Numbers {
    fn drop(&mut self) {
        for (_, value) in &mut self.owned {
            value.zeroize();
        }
        self.all.clear();
    }
}

/// The value of up to twelve digits; a citizen service number has 8 or 9
/// digits of value. `None` for anything that cannot be one.
fn value_of(digits: impl Iterator<Item = u8>) -> Option<u64> {
    let mut value = 0_u64;
    for digit in digits {
        value = value
            .checked_mul(10)?
            .checked_add(u64::from(digit - b'0'))?;
        if value > 999_999_999 {
            return None;
        }
    }
    (value >= 1_000_000).then_some(value)
}

fn scan(
    document: &mut Document,
    node: NodeId,
    parts: &BsnParts,
    numbers: &Numbers,
    remarks: &mut Vec<Remark>,
) {
    let tag = document.element(node).tag.as_str();
    if parts.unscanned.contains(tag) {
        return;
    }
    let text = document.text(node);
    if text.chars().filter_map(digit_of).take(7).count() < 7 {
        return;
    }
    if parts.keys.contains(tag) {
        remarks.extend(key_remark(document, node, numbers).map(|code| Remark { code, at: node }));
        return;
    }
    if !document.element(node).is_text() {
        scan_number(document, node, numbers);
        return;
    }
    let likely_too = !parts.agreed.contains(tag);
    if let Some(masked) = mask(text, numbers, likely_too) {
        document.set_text(node, &masked);
    }
}

/// A number of the schema cannot be masked; an optional one goes instead.
fn scan_number(document: &mut Document, node: NodeId, numbers: &Numbers) {
    let value = value_of(document.text(node).bytes().filter(u8::is_ascii_digit));
    if document.element(node).min == 0 && value.is_some_and(|value| numbers.all.contains(&value)) {
        document.remove(node);
    }
}

/// The value of a digit of the scripts that a keyboard can write: ASCII,
/// Arabic-Indic, its extension, and full width.
fn digit_of(char: char) -> Option<u8> {
    let zero = match char {
        '0'..='9' => '0',
        '\u{660}'..='\u{669}' => '\u{660}',
        '\u{6f0}'..='\u{6f9}' => '\u{6f0}',
        '\u{ff10}'..='\u{ff19}' => '\u{ff10}',
        _ => return None,
    };
    u8::try_from(u32::from(char) - u32::from(zero)).ok()
}

/// The text with every digit as an ASCII one, and without signs that nobody
/// sees.
fn folded(text: &str) -> String {
    let is_unseen = |char: &char| {
        matches!(
            char,
            '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}'
        )
    };
    let fold = |char: char| digit_of(char).map_or(char, |digit| char::from(b'0' + digit));
    text.chars()
        .filter(|char| !is_unseen(char))
        .map(fold)
        .collect()
}

/// What is wrong with a key, if anything. Only whole groups of digits count:
/// a timestamp that happens to contain a number refuses no sick report.
fn key_remark(document: &Document, node: NodeId, numbers: &Numbers) -> Option<Code> {
    let text = &folded(document.text(node));
    let groups = groups(text);
    let mut likely = false;
    for first in 0..groups.len() {
        let mut digits = Vec::new();
        let mut usual = true;
        for (at, group) in groups.iter().enumerate().skip(first) {
            if at > first && !separated(text, &groups, at) {
                break;
            }
            usual &= at == first || joined(text, &groups, at);
            digits.extend(text.get(group.0..group.1)?.bytes());
            let value = value_of(digits.iter().copied());
            if value.is_some_and(|value| numbers.is_own(document, node, value)) {
                return Some(Code::BsnAsKey);
            }
            likely |= usual && is_likely(&digits);
        }
    }
    likely.then_some(Code::BsnSuspect)
}

/// Start and end of each run of digits.
fn groups(text: &str) -> Vec<(usize, usize)> {
    let mut groups = Vec::new();
    let mut start = None;
    for (at, byte) in text.bytes().enumerate() {
        match (byte.is_ascii_digit(), start) {
            (true, None) => start = Some(at),
            (false, Some(from)) => {
                groups.push((from, at));
                start = None;
            }
            _ => {}
        }
    }
    groups.extend(start.map(|from| (from, text.len())));
    groups
}

/// True when group `at` follows the one before it after one dot or space.
fn joined(text: &str, groups: &[(usize, usize)], at: usize) -> bool {
    let (Some(before), Some(this)) = (groups.get(at - 1), groups.get(at)) else {
        return false;
    };
    matches!(text.get(before.1..this.0), Some("." | " " | "\u{a0}"))
}

/// True when nothing but one or two signs that are no letters stand between
/// group `at` and the one before it.
fn separated(text: &str, groups: &[(usize, usize)], at: usize) -> bool {
    let (Some(before), Some(this)) = (groups.get(at - 1), groups.get(at)) else {
        return false;
    };
    let between = text.get(before.1..this.0).unwrap_or_default();
    between.chars().count() <= 2 && !between.chars().any(char::is_alphanumeric)
}

/// Nine digits that pass the eleven-test.
fn is_likely(digits: &[u8]) -> bool {
    let Ok(digits) = <[u8; Bsn::DIGITS]>::try_from(digits) else {
        return false;
    };
    passes_eleven_test(&digits.map(|byte| byte - b'0'))
}

/// A text as its characters, and where the digits stand.
struct Spelling {
    chars: Vec<char>,
    digits: Vec<(usize, u8)>,
    masked: bool,
}

/// The text with its numbers masked, or `None` when it holds none. A certain
/// number is found wherever its digits stand in a row, whatever separates
/// them; a likely one only as digits of its own.
fn mask(text: &str, numbers: &Numbers, likely_too: bool) -> Option<String> {
    let mut spelling = Spelling::of(text);
    spelling.mask_certain(numbers);
    if likely_too {
        spelling.mask_likely();
    }
    spelling.masked.then(|| spelling.chars.iter().collect())
}

impl Spelling {
    fn of(text: &str) -> Self {
        let chars: Vec<char> = text.chars().collect();
        let digits = chars.iter().enumerate();
        let digits = digits.filter_map(|(at, char)| Some((at, digit_of(*char)? + b'0')));
        Self {
            digits: digits.collect(),
            chars,
            masked: false,
        }
    }

    fn mask_certain(&mut self, numbers: &Numbers) {
        let mut found = Vec::new();
        for length in [Bsn::DIGITS, Bsn::DIGITS - 1] {
            for window in self.digits.windows(length) {
                let value = value_of(window.iter().map(|(_, byte)| *byte));
                let certain = value.is_some_and(|value| {
                    numbers.all.contains(&value) && (length == Bsn::DIGITS || value >= 10_000_000)
                });
                if certain && self.is_close(window) {
                    found.extend(window.iter().map(|(at, _)| *at));
                }
            }
        }
        self.blot(&found);
    }

    /// Digits spread over a page are not a number: between neighbours stand at
    /// most three characters, none of them a letter.
    fn is_close(&self, window: &[(usize, u8)]) -> bool {
        window.windows(2).all(|pair| {
            let [(a, _), (b, _)] = pair else { return false };
            let between = self.chars.get(a + 1..*b).unwrap_or_default();
            between.len() <= 3 && !between.iter().any(|char| char.is_alphabetic())
        })
    }

    fn mask_likely(&mut self) {
        let mut found = Vec::new();
        for first in 0..self.digits.len() {
            // Digits in a row, joined at most by one dot or space.
            let row = self
                .digits
                .get(first..first + Bsn::DIGITS)
                .unwrap_or_default();
            let digits: Vec<u8> = row.iter().map(|(_, byte)| *byte).collect();
            let last = first + Bsn::DIGITS - 1;
            let stands_alone = !self.touches(first.wrapping_sub(1)) && !self.touches(last);
            let joined = (first..last).all(|at| self.is_joined(at));
            if stands_alone && joined && is_likely(&digits) {
                found.extend(row.iter().map(|(at, _)| *at));
            }
        }
        self.blot(&found);
    }

    /// True when the next digit follows this one, at most one dot or space
    /// between them.
    fn is_joined(&self, digit: usize) -> bool {
        let (Some((a, _)), Some((b, _))) = (self.digits.get(digit), self.digits.get(digit + 1))
        else {
            return false;
        };
        let between = self.chars.get(a + 1..*b).unwrap_or_default();
        matches!(between, [] | ['.' | ' ' | '\u{a0}'])
    }

    /// True when the next digit follows this one directly.
    fn touches(&self, digit: usize) -> bool {
        let at = |digit: usize| self.digits.get(digit).map(|(at, _)| *at);
        let next = at(digit.wrapping_add(1));
        at(digit).is_some_and(|here| next == Some(here + 1))
    }

    fn blot(&mut self, positions: &[usize]) {
        for at in positions {
            if let Some(char) = self.chars.get_mut(*at) {
                *char = '*';
                self.masked = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn numbers(value: u64) -> Numbers {
        Numbers {
            owned: Vec::new(),
            all: HashSet::from([value]),
        }
    }

    #[test]
    fn a_certain_number_is_masked_in_every_spelling() {
        let own = numbers(12_345_672);
        for text in [
            "012345672",
            "12345672",
            "0123.45.672",
            "012 345 672",
            "BSN:012345672.",
            "0-123-45672",
            "x12345672y",
            "00012345672",
            "012–345–672",
            "012 - 345 - 672",
            "0\u{200b}12\u{200b}345672",
            "０１２３４５６７２",
        ] {
            let masked = mask(text, &own, false).unwrap_or_else(|| panic!("{text}"));
            assert!(
                !masked
                    .chars()
                    .any(|char| digit_of(char).is_some_and(|digit| digit > 0)),
                "{text} → {masked}"
            );
        }
    }

    #[test]
    fn a_likely_number_is_masked_in_text_but_not_in_agreed_codes() {
        let none = Numbers::default();
        assert_eq!(
            mask("Jan 111222333", &none, true).as_deref(),
            Some("Jan *********")
        );
        assert_eq!(
            mask("111.222.333", &none, true).as_deref(),
            Some("***.***.***")
        );
        assert_eq!(mask("Jan 111222333", &none, false), None);
        assert_eq!(mask("Jan 111222334", &none, true), None);
        assert_eq!(mask("1112223331", &none, true), None);
    }

    proptest! {
        #[test]
        fn masking_keeps_the_length_and_leaves_no_number(
            before in "[a-z .]{0,8}", after in "[a-z .]{0,8}", value in 10_000_000_u64..999_999_999
        ) {
            let text = format!("{before}{value:09}{after}");
            let masked = mask(&text, &numbers(value), true).unwrap();
            prop_assert_eq!(masked.len(), text.len());
            prop_assert!(mask(&masked, &numbers(value), true).is_none());
        }

        #[test]
        fn no_text_makes_the_scanner_panic(text in ".*") {
            let _ = mask(&text, &numbers(111_222_333), true);
        }
    }
}
