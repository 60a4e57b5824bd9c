//! Simple types: a built-in type and the facets that restrict it.

use super::lexical::{Decimal, Rules, is_date, is_date_time, is_time, trim};
use crate::domain::Code;
use regex::Regex;
use std::borrow::Cow;

/// The built-in types that SIVI's schemas, or an operator's, may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Builtin {
    /// `xsd:string`
    String,
    /// `xsd:normalizedString`
    NormalizedString,
    /// `xsd:token`
    Token,
    /// `xsd:date`
    Date,
    /// `xsd:time`
    Time,
    /// `xsd:dateTime`
    DateTime,
    /// `xsd:decimal`
    Decimal,
    /// `xsd:integer`
    Integer,
    /// `xsd:nonNegativeInteger`
    NonNegativeInteger,
    /// `xsd:positiveInteger`
    PositiveInteger,
    /// `xsd:boolean`
    Boolean,
}

impl Builtin {
    /// The type of this name in the namespace of XML Schema.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "string" => Self::String,
            "normalizedString" => Self::NormalizedString,
            "token" => Self::Token,
            "date" => Self::Date,
            "time" => Self::Time,
            "dateTime" => Self::DateTime,
            "decimal" => Self::Decimal,
            "integer" => Self::Integer,
            "nonNegativeInteger" => Self::NonNegativeInteger,
            "positiveInteger" => Self::PositiveInteger,
            "boolean" => Self::Boolean,
            _ => return None,
        })
    }

    /// The name within the namespace of XML Schema.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::NormalizedString => "normalizedString",
            Self::Token => "token",
            Self::Date => "date",
            Self::Time => "time",
            Self::DateTime => "dateTime",
            Self::Decimal => "decimal",
            Self::Integer => "integer",
            Self::NonNegativeInteger => "nonNegativeInteger",
            Self::PositiveInteger => "positiveInteger",
            Self::Boolean => "boolean",
        }
    }

    /// The type that this one restricts, if it is on the list.
    pub(super) fn parent(self) -> Option<Self> {
        match self {
            Self::NormalizedString => Some(Self::String),
            Self::Token => Some(Self::NormalizedString),
            Self::Integer => Some(Self::Decimal),
            Self::NonNegativeInteger => Some(Self::Integer),
            Self::PositiveInteger => Some(Self::NonNegativeInteger),
            Self::String
            | Self::Date
            | Self::Time
            | Self::DateTime
            | Self::Decimal
            | Self::Boolean => None,
        }
    }

    pub(super) fn white_space(self) -> WhiteSpace {
        match self {
            Self::String => WhiteSpace::Preserve,
            Self::NormalizedString => WhiteSpace::Replace,
            Self::Token
            | Self::Date
            | Self::Time
            | Self::DateTime
            | Self::Decimal
            | Self::Integer
            | Self::NonNegativeInteger
            | Self::PositiveInteger
            | Self::Boolean => WhiteSpace::Collapse,
        }
    }

    pub(super) fn is_number(self) -> bool {
        self.decimal("0").is_some() || self == Self::PositiveInteger
    }

    pub(super) fn is_text(self) -> bool {
        matches!(self, Self::String | Self::NormalizedString | Self::Token)
    }

    /// The number that a text is, for the types of numbers.
    pub(super) fn decimal(self, text: &str) -> Option<Decimal<'_>> {
        match self {
            Self::Decimal => Decimal::parse(text),
            Self::Integer => Decimal::parse_integer(text),
            Self::NonNegativeInteger => Decimal::parse_integer(text).filter(|n| !n.is_negative()),
            Self::PositiveInteger => {
                Decimal::parse_integer(text).filter(|n| !n.is_negative() && !n.is_zero())
            }
            Self::String
            | Self::NormalizedString
            | Self::Token
            | Self::Date
            | Self::Time
            | Self::DateTime
            | Self::Boolean => None,
        }
    }
}

/// What happens to white space before a value is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WhiteSpace {
    /// Nothing.
    Preserve,
    /// Every white space character becomes a space.
    Replace,
    /// And runs of spaces become one, none at the ends.
    Collapse,
}

impl WhiteSpace {
    /// The text after processing.
    #[must_use]
    pub fn apply(self, text: &str) -> Cow<'_, str> {
        let other = |c: char| matches!(c, '\t' | '\n' | '\r');
        match self {
            Self::Replace if text.contains(other) => Cow::Owned(text.replace(other, " ")),
            Self::Preserve | Self::Replace => Cow::Borrowed(text),
            Self::Collapse => {
                let text = trim(text);
                if text.contains(other) || text.contains("  ") {
                    let words = text
                        .split([' ', '\t', '\n', '\r'])
                        .filter(|word| !word.is_empty());
                    Cow::Owned(words.collect::<Vec<_>>().join(" "))
                } else {
                    Cow::Borrowed(text)
                }
            }
        }
    }
}

/// A limit of a range.
#[derive(Clone, Debug)]
pub struct Bound {
    /// The limit as written in the schema, without space around it.
    pub value: String,
    /// Whether the limit itself is within the range.
    pub inclusive: bool,
}

/// A simple type of a schema.
#[derive(Clone, Debug)]
pub struct SimpleType {
    /// The built-in type that it restricts.
    pub base: Builtin,
    /// What happens to white space.
    pub white_space: WhiteSpace,
    /// Fewest characters.
    pub min_length: Option<usize>,
    /// Most characters.
    pub max_length: Option<usize>,
    /// Most digits in all.
    pub total_digits: Option<usize>,
    /// Most digits behind the point.
    pub fraction_digits: Option<usize>,
    /// Lower limit of a number.
    pub minimum: Option<Bound>,
    /// Upper limit of a number.
    pub maximum: Option<Bound>,
    /// The codes; empty when any value goes.
    pub codes: Vec<String>,
    /// Each has to match.
    pub patterns: Vec<Regex>,
    /// The named types it is or restricts, nearest first; built-in ones as
    /// `{xsd}name`.
    pub(super) lineage: Vec<String>,
}

impl SimpleType {
    /// A built-in type without further facets.
    #[must_use]
    pub fn builtin(base: Builtin) -> Self {
        let mut lineage = Vec::new();
        let mut next = Some(base);
        while let Some(builtin) = next {
            lineage.push(format!("{{xsd}}{}", builtin.name()));
            next = builtin.parent();
        }
        Self {
            base,
            white_space: base.white_space(),
            min_length: None,
            max_length: None,
            total_digits: None,
            fraction_digits: None,
            minimum: None,
            maximum: None,
            codes: Vec::new(),
            patterns: Vec::new(),
            lineage,
        }
    }

    /// Whether a value has no upper limit to its length.
    #[must_use]
    pub fn is_unlimited(&self) -> bool {
        self.base.is_text() && self.max_length.is_none() && self.codes.is_empty()
    }

    /// Judges a value of which white space was processed as `white_space`
    /// says; `raw` is the value before that.
    pub(super) fn check(&self, value: &str, raw: &str, rules: Rules) -> Result<(), Fault<'_>> {
        self.check_form(value, raw, rules)?;
        if self.base.is_text() {
            self.check_length(value)?;
        } else if let Some(number) = self.base.decimal(value) {
            self.check_number(number)?;
        }
        if !self.codes.is_empty() && !self.has_code(value) {
            return Err(Fault::Codes(&self.codes));
        }
        if self.patterns.iter().all(|pattern| pattern.is_match(value)) {
            Ok(())
        } else {
            Err(Fault::Pattern)
        }
    }

    fn check_form(&self, value: &str, raw: &str, rules: Rules) -> Result<(), Fault<'_>> {
        let fine = match self.base {
            Builtin::String | Builtin::NormalizedString | Builtin::Token => true,
            Builtin::Date => is_date(raw, rules),
            Builtin::Time => is_time(raw, rules),
            Builtin::DateTime => is_date_time(raw, rules),
            Builtin::Boolean => matches!(value, "true" | "false" | "1" | "0"),
            Builtin::Decimal
            | Builtin::Integer
            | Builtin::NonNegativeInteger
            | Builtin::PositiveInteger => self.base.decimal(value).is_some(),
        };
        if fine {
            Ok(())
        } else {
            Err(Fault::Form(self.base))
        }
    }

    fn check_length(&self, value: &str) -> Result<(), Fault<'_>> {
        // Characters are at most bytes and at least a quarter of them, so
        // most values need no counting.
        if let Some(most) = self.max_length
            && value.len() > most
            && value.chars().count() > most
        {
            return Err(Fault::TooLong(most));
        }
        if let Some(fewest) = self.min_length
            && (value.len() < fewest || value.chars().count() < fewest)
        {
            return Err(Fault::TooShort(fewest));
        }
        Ok(())
    }

    fn check_number(&self, number: Decimal<'_>) -> Result<(), Fault<'_>> {
        if let Some(most) = self.total_digits
            && number.total_digits() > most
        {
            return Err(Fault::TotalDigits(most));
        }
        if let Some(most) = self.fraction_digits
            && number.fraction_digits() > most
        {
            return Err(Fault::FractionDigits(most));
        }
        if let Some(bound) = &self.minimum
            && let Some(limit) = Decimal::parse(&bound.value)
            && (number < limit || (number == limit && !bound.inclusive))
        {
            return Err(Fault::Range(bound));
        }
        if let Some(bound) = &self.maximum
            && let Some(limit) = Decimal::parse(&bound.value)
            && (number > limit || (number == limit && !bound.inclusive))
        {
            return Err(Fault::Range(bound));
        }
        Ok(())
    }

    /// Codes are compared as values: for numbers `01` is `1`.
    fn has_code(&self, value: &str) -> bool {
        if self.codes.iter().any(|code| code == value) {
            return true;
        }
        let number = self.base.decimal(value);
        number.is_some()
            && self
                .codes
                .iter()
                .any(|code| self.base.decimal(code) == number)
    }
}

/// What is wrong with a value. Holds facts of the schema only.
#[derive(Debug)]
pub(super) enum Fault<'a> {
    Form(Builtin),
    TooLong(usize),
    TooShort(usize),
    TotalDigits(usize),
    FractionDigits(usize),
    Range(&'a Bound),
    Pattern,
    Codes(&'a [String]),
}

/// Codes named in a finding before the list is cut short.
const LISTED_CODES: usize = 40;

impl Fault<'_> {
    /// The rule that was broken.
    pub fn code(&self) -> Code {
        match self {
            Self::Form(_) => Code::ValueType,
            Self::TooLong(_)
            | Self::TooShort(_)
            | Self::TotalDigits(_)
            | Self::FractionDigits(_) => Code::ValueLength,
            Self::Range(_) => Code::ValueRange,
            Self::Pattern => Code::ValuePattern,
            Self::Codes(_) => Code::ValueCode,
        }
    }

    /// What the schema asked for.
    pub fn expected(&self) -> Option<String> {
        Some(match self {
            Self::Form(base) => format!("xsd:{}", base.name()),
            Self::TooLong(most) => format!("maxLength {most}"),
            Self::TooShort(fewest) => format!("minLength {fewest}"),
            Self::TotalDigits(most) => format!("totalDigits {most}"),
            Self::FractionDigits(most) => format!("fractionDigits {most}"),
            Self::Range(bound) => {
                let kind = if bound.inclusive {
                    "inclusive"
                } else {
                    "exclusive"
                };
                format!("limit {} {kind}", bound.value)
            }
            Self::Pattern => return None,
            Self::Codes(codes) => {
                let listed: Vec<_> = codes
                    .iter()
                    .take(LISTED_CODES)
                    .map(String::as_str)
                    .collect();
                let more = if codes.len() > LISTED_CODES {
                    ", …"
                } else {
                    ""
                };
                format!("{}{more}", listed.join(", "))
            }
        })
    }
}
