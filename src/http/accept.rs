//! What a client wants to read: `Accept` and `Accept-Language`.

use axum::http::{HeaderMap, HeaderName, header};

use crate::domain::Language;

/// What kind of answer the client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// JSON, at least as much as XML.
    Json,
    /// XML rather than JSON.
    Xml,
    /// Neither is named: the message decides.
    Either,
}

impl Wanted {
    /// What the `Accept` header says.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let (mut json, mut xml) = (0, 0);
        for (name, weight) in weighted(headers, &header::ACCEPT) {
            match name.as_str() {
                "application/json" | "application/problem+json" => json = json.max(weight),
                "application/xml" | "text/xml" => xml = xml.max(weight),
                _ => {}
            }
        }
        if json > 0 && json >= xml {
            Self::Json
        } else if xml > 0 {
            Self::Xml
        } else {
            Self::Either
        }
    }
}

/// The language that the client likes best of the two there are.
#[must_use]
pub fn language(headers: &HeaderMap) -> Language {
    let (mut best, mut language) = (0, Language::English);
    for (name, weight) in weighted(headers, &header::ACCEPT_LANGUAGE) {
        let spoken = match name.split('-').next() {
            Some("nl") => Language::Dutch,
            Some("en") => Language::English,
            _ => continue,
        };
        if weight > best {
            (best, language) = (weight, spoken);
        }
    }
    language
}

/// The items of a header in lower case, with their weight in thousandths.
fn weighted(headers: &HeaderMap, name: &HeaderName) -> Vec<(String, u16)> {
    let values = headers.get_all(name).iter();
    let items = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    items
        .map(|item| {
            let mut parts = item.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default().to_ascii_lowercase();
            let weight = parts
                .find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")))
                .map_or(1000, thousandths);
            (name, weight)
        })
        .collect()
}

/// `0.8` as 800; what is no weight counts as nothing.
fn thousandths(text: &str) -> u16 {
    match text.split_once('.') {
        None => text.parse::<u16>().map_or(0, |whole| whole.min(1) * 1000),
        Some((whole, fraction)) => {
            let digits: String = fraction.chars().chain("000".chars()).take(3).collect();
            let fraction = digits.parse::<u16>().unwrap_or(0);
            (whole.parse::<u16>().unwrap_or(0).min(1) * 1000 + fraction).min(1000)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn headers(name: HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn the_heavier_kind_is_wanted_and_json_wins_a_draw() {
        for (accept, wanted) in [
            ("", Wanted::Either),
            ("*/*", Wanted::Either),
            ("text/html, */*;q=0.8", Wanted::Either),
            ("application/json", Wanted::Json),
            ("Application/JSON; charset=utf-8", Wanted::Json),
            ("application/problem+json", Wanted::Json),
            ("text/xml", Wanted::Xml),
            ("application/xml, application/json", Wanted::Json),
            ("application/xml, application/json;q=0.5", Wanted::Xml),
            ("application/json;q=0, application/xml;q=0.1", Wanted::Xml),
            ("application/xhtml+xml", Wanted::Either),
        ] {
            let found = Wanted::of(&headers(header::ACCEPT, accept));
            assert_eq!(found, wanted, "{accept}");
        }
    }

    #[test]
    fn the_language_goes_by_weight() {
        for (accepted, expected) in [
            ("", Language::English),
            ("nl", Language::Dutch),
            ("nl-BE,nl;q=0.9,en;q=0.8", Language::Dutch),
            ("en;q=0.5, nl;q=0.9", Language::Dutch),
            ("en, nl", Language::English),
            ("de, nl;q=0.1", Language::Dutch),
            ("nl;q=0", Language::English),
        ] {
            let found = language(&headers(header::ACCEPT_LANGUAGE, accepted));
            assert_eq!(found, expected, "{accepted}");
        }
    }
}
