//! What an operator asks for: filters and pages, read strictly. A filter with
//! a misspelled key would name more than was meant.

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, Query};
use axum::http::Uri;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::http::{Kind, Problem};
use crate::letters::{PAGE, PAGE_MAX, Unfit};
use crate::store::Error;

/// Where a page begins and how long it is.
#[derive(Debug, Deserialize)]
pub(super) struct Page {
    /// The id to go on after.
    pub(super) after: Option<String>,
    /// Most items, 1 to 1000.
    #[serde(default = "default_limit")]
    pub(super) limit: usize,
}

fn default_limit() -> usize {
    PAGE
}

/// The keys of a page, which may stand beside those of a filter.
const PAGE_KEYS: [&str; 2] = ["after", "limit"];

/// The filter and the page of a query.
pub(super) fn listing<T: DeserializeOwned>(uri: &Uri, keys: &[&str]) -> Result<(T, Page), Problem> {
    let pairs: Vec<(String, String)> = query(uri)?;
    let is_known = |key: &str| keys.contains(&key) || PAGE_KEYS.contains(&key);
    if pairs.iter().any(|(key, _)| !is_known(key)) {
        return Err(bad("the query has an unknown parameter"));
    }
    let page: Page = query(uri)?;
    if !(1..=PAGE_MAX).contains(&page.limit) {
        return Err(bad(format!("limit must be 1 to {PAGE_MAX}")));
    }
    Ok((query(uri)?, page))
}

fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Problem> {
    let query = Query::try_from_uri(uri);
    query
        .map(|Query(query)| query)
        .map_err(|_| bad("a query parameter has the wrong form"))
}

/// A JSON body; none at all means the default.
pub(super) fn body<T: DeserializeOwned + Default>(
    body: Result<Bytes, BytesRejection>,
) -> Result<T, Problem> {
    let body = body.map_err(|_| Problem::new(Kind::TooLarge).closing())?;
    if body.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(&body).map_err(|_| bad("the JSON body has the wrong form"))
}

/// The filter of a JSON body. It must be there: leaving it out is no way to
/// say "everything".
pub(super) fn filter<T: DeserializeOwned>(
    filter: Option<Map<String, Value>>,
    keys: &[&str],
) -> Result<T, Problem> {
    let filter = filter.ok_or_else(|| bad("filter is missing; {} names everything"))?;
    if filter.keys().any(|key| !keys.contains(&key.as_str())) {
        return Err(bad("the filter has an unknown key"));
    }
    serde_json::from_value(Value::Object(filter)).map_err(|_| bad("the filter has the wrong form"))
}

/// An id that is no text is nobody's.
pub(super) fn id(id: Result<Path<String>, PathRejection>) -> Result<String, Problem> {
    id.map(|Path(id)| id).map_err(|_| not_found())
}

pub(super) fn not_found() -> Problem {
    Problem::new(Kind::NotFound)
}

pub(super) fn bad(detail: impl Into<String>) -> Problem {
    Problem::new(Kind::BadRequest).detail(detail)
}

pub(super) fn unfit(unfit: Unfit) -> Problem {
    bad(unfit.to_string())
}

pub(super) fn store_problem(cause: &Error) -> Problem {
    match cause {
        Error::Conflict => {
            Problem::new(Kind::Unavailable).detail("others changed the same: try again")
        }
        Error::Busy
        | Error::Unavailable(_)
        | Error::WrongKeys
        | Error::StoreLost
        | Error::Moved { .. }
        | Error::Damaged { .. } => crate::receive::store_problem(cause),
    }
}
