//! The citizen service number.

use std::fmt;

use zeroize::Zeroize;

/// A citizen service number (burgerservicenummer) that passed the eleven-test.
///
/// Nine decimal digits, most significant first. It has no `Serialize`,
/// `Display` or `Clone`, so no row, log line or answer can hold it by
/// accident, and its memory is overwritten on drop.
///
/// Source: Logisch Ontwerp BSN (RvIG); the last digit weighs −1.
pub struct Bsn([u8; Self::DIGITS]);

impl Bsn {
    /// How many digits a number has.
    pub const DIGITS: usize = 9;

    /// Reads a number as senders write it: 8 or 9 digits (payroll packages
    /// drop a leading zero), with dots or spaces between them or not.
    ///
    /// # Errors
    ///
    /// One variant of [`BsnError`] per broken rule; none carries the input.
    pub fn parse(text: &str) -> Result<Self, BsnError> {
        let (mut value, mut count) = (0_u64, 0);
        for byte in text.bytes() {
            match byte {
                b'.' | b' ' => {}
                b'0'..=b'9' => {
                    value = value * 10 + u64::from(byte - b'0');
                    count += 1;
                    if value >= 10_u64.pow(9) {
                        return Err(BsnError::Length);
                    }
                }
                _ => return Err(BsnError::NotDigits),
            }
        }
        if count < Self::DIGITS - 1 {
            return Err(BsnError::Length);
        }
        let mut digits = [0_u8; Self::DIGITS];
        for digit in digits.iter_mut().rev() {
            *digit = (value % 10).to_le_bytes()[0];
            value /= 10;
        }
        if !passes_eleven_test(&digits) {
            digits.zeroize();
            return Err(BsnError::ElevenTest);
        }
        Ok(Self(digits))
    }

    /// True when `digits` (values 0 to 9) spell this number, with or without
    /// its leading zero.
    #[must_use]
    pub fn is_spelled_by(&self, digits: &[u8]) -> bool {
        digits == self.0 || self.0.strip_prefix(&[0]) == Some(digits)
    }
}

impl fmt::Debug for Bsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bsn(redacted)")
    }
}

impl Drop for Bsn {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// Why a text is not a citizen service number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BsnError {
    /// Not eight or nine digits.
    Length,
    /// Something else than digits, dots and spaces.
    NotDigits,
    /// The weighted sum is not a positive multiple of eleven.
    ElevenTest,
}

/// The eleven-test (elfproef) on nine digit values of 0 to 9.
#[must_use]
pub fn passes_eleven_test(digits: &[u8; Bsn::DIGITS]) -> bool {
    const WEIGHTS: [i32; Bsn::DIGITS] = [9, 8, 7, 6, 5, 4, 3, 2, -1];
    let sum: i32 = digits
        .iter()
        .zip(WEIGHTS)
        .map(|(digit, weight)| i32::from(*digit) * weight)
        .sum();
    sum > 0 && sum % 11 == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Numbers that pass, built from eight free digits and their check digit.
    fn valid() -> impl Strategy<Value = String> {
        proptest::collection::vec(0_u8..10, 8).prop_filter_map("has no check digit", |digits| {
            let sum: i32 = digits
                .iter()
                .zip([9, 8, 7, 6, 5, 4, 3, 2])
                .map(|(digit, weight)| i32::from(*digit) * weight)
                .sum();
            let check = u8::try_from(sum % 11).ok().filter(|c| *c < 10 && sum > 0)?;
            Some(digits.iter().chain([&check]).map(u8::to_string).collect())
        })
    }

    proptest! {
        #[test]
        fn every_number_with_its_check_digit_is_accepted(text in valid()) {
            prop_assert!(Bsn::parse(&text).is_ok());
        }

        #[test]
        fn one_wrong_digit_is_always_caught(text in valid(), at in 0_usize..9, by in 1_u8..10) {
            let mut bytes = text.into_bytes();
            bytes[at] = b'0' + (bytes[at] - b'0' + by) % 10;
            let text = String::from_utf8(bytes).unwrap();
            prop_assert_eq!(Bsn::parse(&text).unwrap_err(), BsnError::ElevenTest);
        }

        #[test]
        fn two_swapped_neighbours_are_always_caught(text in valid(), at in 0_usize..8) {
            let mut bytes = text.into_bytes();
            prop_assume!(bytes[at] != bytes[at + 1]);
            bytes.swap(at, at + 1);
            let text = String::from_utf8(bytes).unwrap();
            prop_assert!(Bsn::parse(&text).is_err());
        }

        #[test]
        fn dots_spaces_and_a_dropped_zero_spell_the_same_number(text in valid()) {
            let dotted = format!("{}.{} {}", &text[..4], &text[4..6], &text[6..]);
            prop_assert!(Bsn::parse(&dotted).is_ok());
            if let Some(short) = text.strip_prefix('0') {
                let digits: Vec<u8> = text.bytes().map(|b| b - b'0').collect();
                prop_assert!(Bsn::parse(short).unwrap().is_spelled_by(&digits));
            }
        }

        #[test]
        fn nothing_makes_the_parser_panic(text in ".*") {
            let _ = Bsn::parse(&text);
        }
    }

    #[test]
    fn debug_shows_no_digit() {
        let shown = format!("{:?}", Bsn::parse("111222333").unwrap());
        assert_eq!(shown, "Bsn(redacted)");
    }
}
