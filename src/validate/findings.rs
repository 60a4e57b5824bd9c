//! The findings of one pass: at most so many, each with its byte offset.

use super::MAX_FINDINGS;
use crate::domain::{Code, Finding, Severity};

/// Findings in the order in which they were made.
#[derive(Debug, Default)]
pub(super) struct Findings {
    list: Vec<Finding>,
    offsets: Vec<u64>,
    overflow: Overflow,
}

/// What did not fit.
#[derive(Clone, Copy, Debug, Default)]
struct Overflow {
    any: bool,
    errors: bool,
}

/// A state to go back to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mark {
    length: usize,
    overflow: Overflow,
}

impl Findings {
    /// Whether another finding would be listed; if not, none need be made.
    pub fn has_room(&self) -> bool {
        self.list.len() < MAX_FINDINGS
    }

    pub fn push(&mut self, finding: Finding, offset: u64) {
        if self.has_room() {
            self.list.push(finding);
            self.offsets.push(offset);
        } else {
            self.overflow.any = true;
            self.overflow.errors |= finding.severity == Severity::Error;
        }
    }

    /// Adds the finding that ended the pass; it is always listed.
    pub fn refuse(&mut self, finding: Finding, offset: u64) {
        self.list.push(finding);
        self.offsets.push(offset);
    }

    pub fn mark(&self) -> Mark {
        Mark {
            length: self.list.len(),
            overflow: self.overflow,
        }
    }

    /// Forgets what was found since the mark.
    pub fn forget(&mut self, mark: Mark) {
        self.list.truncate(mark.length);
        self.offsets.truncate(mark.length);
        self.overflow = mark.overflow;
    }

    /// Takes back "missing" of an element that turned up in the wrong place.
    pub fn retract_missing(&mut self, path: &str, tag: &str, since: Mark) {
        let found = self
            .list
            .iter()
            .enumerate()
            .skip(since.length)
            .find(|(_, finding)| {
                finding.code == Code::ElementMissing
                    && finding.path == path
                    && finding.expected.as_deref() == Some(tag)
            });
        if let Some((at, _)) = found {
            self.list.remove(at);
            self.offsets.remove(at);
        }
    }

    /// The list, closed by [`Code::TooManyFindings`] when some did not fit;
    /// that one is an error when an error did not fit.
    pub fn finish(mut self) -> (Vec<Finding>, Vec<u64>) {
        if self.overflow.any {
            let mut last = Finding::new(Code::TooManyFindings);
            if self.overflow.errors {
                last.severity = Severity::Error;
            }
            self.offsets.push(self.offsets.last().copied().unwrap_or(0));
            self.list.push(last);
        }
        (self.list, self.offsets)
    }
}
