//! Which message a document is.

use super::schema::MessageSchema;
use super::{Edition, Mode, Term};
use crate::parse::{Event, Instructions, Reader};
use std::sync::Arc;

/// Finds the message from the beginning of a document: on receipt by the
/// code in its header, else by the tag of its root. The header wins, because
/// some senders name the root otherwise.
pub(super) fn identify<'e>(
    edition: &'e Edition,
    head: &[u8],
    mode: Mode<'_>,
) -> Option<&'e Arc<MessageSchema>> {
    let header = Header::read(edition, head);
    let by_root = header
        .root
        .and_then(|root| edition.messages().find(|message| message.root == root));
    let by_code = || {
        header
            .code
            .and_then(|code| edition.message_by_code(code.trim()))
    };
    match mode {
        Mode::SchemaOnly => by_root.or_else(by_code),
        Mode::Tolerant(_) => by_code().or(by_root),
    }
}

/// What the beginning of a document says.
#[derive(Default)]
struct Header {
    root: Option<String>,
    code: Option<String>,
}

impl Header {
    /// Stops at the first fault: the pass over the document will report it.
    fn read(edition: &Edition, head: &[u8]) -> Self {
        let mut found = Self::default();
        let Ok(mut reader) = Reader::new(head, head, Instructions::PassOver) else {
            return found;
        };
        let (mut depth, mut in_header, mut in_code) = (0_usize, false, false);
        while let Ok((_, event)) = reader.next_event() {
            match event {
                Event::Start(start) => {
                    depth += 1;
                    match depth {
                        1 => found.root = Some(start.local().to_owned()),
                        2 => in_header = edition.has_term(start.local(), Term::Header),
                        3 => {
                            in_code =
                                in_header && edition.has_term(start.local(), Term::MessageCode);
                        }
                        _ => {}
                    }
                    if in_code {
                        found.code.get_or_insert_default();
                    }
                }
                Event::End => {
                    // The header comes first: behind its code, or its end,
                    // there is nothing to look for.
                    if in_code || (in_header && depth == 2) {
                        break;
                    }
                    depth = depth.saturating_sub(1);
                }
                Event::Text(text) | Event::Cdata(text) if in_code => {
                    found.code.get_or_insert_default().push_str(text);
                }
                Event::Text(_) | Event::Cdata(_) | Event::Nothing => {}
                Event::Eof => break,
            }
        }
        found
    }
}
