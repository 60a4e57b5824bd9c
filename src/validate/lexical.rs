//! The written forms of dates, times and numbers.
//!
//! Where libxml2 departs from the recommendation, [`Rules::Libxml2`] departs
//! with it, so that the bare verdict can be compared case by case:
//! no white space around a date, none behind a time, at most 24 digits.
//!
//! Source: XML Schema 1.0 part 2, sections 3.2.3, 3.2.7 to 3.2.9, 3.3.13.

/// Whose reading of the recommendation holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rules {
    /// The recommendation.
    Recommendation,
    /// libxml2 2.9.
    Libxml2,
}

/// Most digits of a number that libxml2 reads, leading zeros aside.
const MAX_DIGITS: usize = 24;
/// Widest time zone, in minutes: 14 hours.
const MAX_ZONE: u32 = 840;

/// The text without XML white space around it.
pub fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t', '\n', '\r'])
}

/// Walks over the parts of a date or a time.
struct Scan<'a>(&'a [u8]);

impl Scan<'_> {
    fn byte(&mut self, wanted: u8) -> Option<()> {
        let (first, rest) = self.0.split_first()?;
        (*first == wanted).then(|| self.0 = rest)
    }

    fn two(&mut self, range: std::ops::RangeInclusive<u32>) -> Option<u32> {
        let [tens, ones, rest @ ..] = self.0 else {
            return None;
        };
        if !tens.is_ascii_digit() || !ones.is_ascii_digit() {
            return None;
        }
        self.0 = rest;
        let value = u32::from(tens - b'0') * 10 + u32::from(ones - b'0');
        range.contains(&value).then_some(value)
    }

    fn digits(&mut self) -> &[u8] {
        let count = self.0.iter().take_while(|b| b.is_ascii_digit()).count();
        let (digits, rest) = self.0.split_at(count);
        self.0 = rest;
        digits
    }

    /// At least four digits, no superfluous zero, never the year 0.
    fn year(&mut self) -> Option<i64> {
        let negative = self.byte(b'-').is_some();
        let digits = self.digits();
        if digits.len() < 4 || (digits.len() > 4 && digits.first() == Some(&b'0')) {
            return None;
        }
        let mut year = 0_i64;
        for digit in digits {
            year = year.checked_mul(10)?.checked_add(i64::from(digit - b'0'))?;
        }
        (year != 0).then_some(if negative { -year } else { year })
    }

    fn date(&mut self) -> Option<()> {
        let year = self.year()?;
        self.byte(b'-')?;
        let month = self.two(1..=12)?;
        self.byte(b'-')?;
        let day = self.two(1..=31)?;
        (day <= days(year, month)).then_some(())
    }

    fn time(&mut self) -> Option<()> {
        let hour = self.two(0..=24)?;
        self.byte(b':')?;
        let minute = self.two(0..=59)?;
        self.byte(b':')?;
        let second = self.two(0..=59)?;
        let mut zero = second == 0;
        if self.byte(b'.').is_some() {
            let fraction = self.digits();
            if fraction.is_empty() || !below_a_minute(second, fraction) {
                return None;
            }
            zero &= fraction.iter().all(|digit| *digit == b'0');
        }
        (hour < 24 || (minute == 0 && zero)).then_some(())
    }

    fn zone(&mut self) -> Option<()> {
        if self.0.is_empty() || self.byte(b'Z').is_some() {
            return Some(());
        }
        self.byte(b'+').or_else(|| self.byte(b'-'))?;
        let hours = self.two(0..=23)?;
        self.byte(b':')?;
        let minutes = self.two(0..=59)?;
        (hours * 60 + minutes <= MAX_ZONE).then_some(())
    }

    fn end(&self) -> bool {
        self.0.is_empty()
    }
}

/// libxml2 adds a fraction digit by digit in floating point; so many nines
/// that the sum rounds to 60 are refused there, and here.
fn below_a_minute(second: u32, fraction: &[u8]) -> bool {
    let (mut sum, mut weight) = (f64::from(second), 1.0_f64);
    for digit in fraction {
        weight /= 10.0;
        sum += f64::from(digit - b'0') * weight;
    }
    sum < 60.0
}

fn days(year: i64, month: u32) -> u32 {
    let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Whether a text is an `xsd:date`.
pub fn is_date(text: &str, rules: Rules) -> bool {
    let text = match rules {
        Rules::Recommendation => trim(text),
        Rules::Libxml2 => text,
    };
    let mut scan = Scan(text.as_bytes());
    scan.date().and_then(|()| scan.zone()).is_some() && scan.end()
}

/// Whether a text is an `xsd:time`.
pub fn is_time(text: &str, rules: Rules) -> bool {
    let text = match rules {
        Rules::Recommendation => trim(text),
        Rules::Libxml2 => text.trim_start_matches([' ', '\t', '\n', '\r']),
    };
    let mut scan = Scan(text.as_bytes());
    scan.time().and_then(|()| scan.zone()).is_some() && scan.end()
}

/// Whether a text is an `xsd:dateTime`.
pub fn is_date_time(text: &str, rules: Rules) -> bool {
    let text = match rules {
        Rules::Recommendation => trim(text),
        Rules::Libxml2 => text,
    };
    let mut scan = Scan(text.as_bytes());
    let found = scan
        .date()
        .and_then(|()| scan.byte(b'T'))
        .and_then(|()| scan.time())
        .and_then(|()| scan.zone());
    found.is_some() && scan.end()
}

/// A decimal number as its significant digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decimal<'a> {
    /// Below zero; never set for zero itself.
    negative: bool,
    /// Digits before the point, without leading zeros.
    whole: &'a str,
    /// Digits behind the point, without trailing zeros.
    fraction: &'a str,
}

impl<'a> Decimal<'a> {
    /// Reads an `xsd:decimal`, without space around it.
    pub fn parse(text: &'a str) -> Option<Self> {
        let (number, minus) = unsigned(text);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if (whole.is_empty() && fraction.is_empty()) || !digits(whole) || !digits(fraction) {
            return None;
        }
        Self::new(minus, whole, fraction)
    }

    /// Reads an `xsd:integer`, without space around it.
    pub fn parse_integer(text: &'a str) -> Option<Self> {
        let (number, minus) = unsigned(text);
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        Self::new(minus, number, "")
    }

    fn new(minus: bool, whole: &'a str, fraction: &'a str) -> Option<Self> {
        let whole = whole.trim_start_matches('0');
        let fraction = fraction.trim_end_matches('0');
        let zero = whole.is_empty() && fraction.is_empty();
        (whole.len() + fraction.len() <= MAX_DIGITS).then_some(Self {
            negative: minus && !zero,
            whole,
            fraction,
        })
    }

    /// Digits in all, as `totalDigits` counts them.
    pub fn total_digits(&self) -> usize {
        self.whole.len() + self.fraction.len()
    }

    /// Digits behind the point.
    pub fn fraction_digits(&self) -> usize {
        self.fraction.len()
    }

    /// Whether it is below zero.
    pub fn is_negative(&self) -> bool {
        self.negative
    }

    /// Whether it is zero.
    pub fn is_zero(&self) -> bool {
        self.whole.is_empty() && self.fraction.is_empty()
    }
}

fn unsigned(text: &str) -> (&str, bool) {
    match text.strip_prefix('-') {
        Some(number) => (number, true),
        None => (text.strip_prefix('+').unwrap_or(text), false),
    }
}

impl PartialOrd for Decimal<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Decimal<'_> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let size = |a: &Self, b: &Self| {
            (a.whole.len(), a.whole, a.fraction).cmp(&(b.whole.len(), b.whole, b.fraction))
        };
        match (self.negative, other.negative) {
            (false, true) => std::cmp::Ordering::Greater,
            (true, false) => std::cmp::Ordering::Less,
            (false, false) => size(self, other),
            (true, true) => size(other, self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_know_leap_years_zones_and_long_years() {
        for fine in [
            "2016-02-29",
            "-0004-02-29",
            "12017-01-01",
            "2017-01-01Z",
            "2017-01-01+14:00",
            "2017-01-01-00:00",
            "2000-02-29",
        ] {
            assert!(is_date(fine, Rules::Libxml2), "{fine}");
        }
        for bad in [
            "2017-02-29",
            "1900-02-29",
            "0000-01-01",
            "02017-01-01",
            "2017-01-01+14:01",
            "2017-1-01",
            "20170101",
            "",
            "2017-01-01z",
            "2017-04-31",
            "2017-13-01",
            "+2017-01-01",
            "99999999999999999999-01-01",
        ] {
            assert!(!is_date(bad, Rules::Recommendation), "{bad}");
        }
    }

    #[test]
    fn libxml2_takes_no_space_around_dates_and_none_behind_times() {
        assert!(is_date(" 2017-01-01\n", Rules::Recommendation));
        assert!(!is_date(" 2017-01-01", Rules::Libxml2));
        assert!(is_time(" 12:00:00", Rules::Libxml2));
        assert!(!is_time("12:00:00 ", Rules::Libxml2));
        assert!(is_time("12:00:00 ", Rules::Recommendation));
    }

    #[test]
    fn times_end_at_24() {
        for fine in [
            "00:00:00",
            "24:00:00",
            "24:00:00.0",
            "23:59:59.999",
            "12:00:00+14:00",
            "24:00:00Z",
        ] {
            assert!(is_time(fine, Rules::Libxml2), "{fine}");
        }
        for bad in [
            "24:00:01",
            "24:00:00.1",
            "24:01:00",
            "12:00",
            "12:00:60",
            "12:00:00.",
            "1:00:00",
            "12:00:59.99999999999999",
        ] {
            assert!(!is_time(bad, Rules::Libxml2), "{bad}");
        }
        assert!(is_date_time("2017-12-31T24:00:00Z", Rules::Libxml2));
        assert!(!is_date_time("2017-12-31 12:00:00", Rules::Libxml2));
    }

    #[test]
    fn decimals_compare_by_value() {
        let read = |text| Decimal::parse(text).unwrap();
        assert_eq!(read("+01.50"), read("1.5"));
        assert_eq!(read("-0.0"), read("0"));
        assert!(read("-2") < read("-1.9"));
        assert!(read("10") > read("9.99"));
        assert!(read("0.05") < read("0.5"));
        assert_eq!(read("00120.500").total_digits(), 4);
        for bad in [".", "", "+", "1e1", "1.2.3", "٣", "- 1"] {
            assert!(Decimal::parse(bad).is_none(), "{bad}");
        }
        assert!(Decimal::parse_integer("5.0").is_none());
        assert!(Decimal::parse_integer("1234567890123456789012345").is_none());
    }
}
