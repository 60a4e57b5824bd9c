//! Where a byte offset of the decoded text is.

use super::decode::{Decoded, sniff};
use super::peek;
use std::io::{self, BufRead};

/// A line and a column, both counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Line.
    pub line: u64,
    /// Column in characters of the decoded text.
    pub column: u64,
}

/// The places of byte offsets in the decoded text of a document, in the
/// order of `offsets`.
///
/// Reads the document once more. Places are only wanted when there is
/// something to say, so the first reading does not count lines.
///
/// # Errors
///
/// Those of the source.
pub fn places(input: impl BufRead, offsets: &[u64]) -> io::Result<Vec<Place>> {
    let (head, input) = peek(input)?;
    let mut found = vec![Place { line: 1, column: 1 }; offsets.len()];
    let Ok(encoding) = sniff(&head) else {
        return Ok(found);
    };
    let mut order: Vec<usize> = (0..offsets.len()).collect();
    order.sort_by_key(|index| offsets.get(*index));
    let mut order = order.into_iter().peekable();
    let mut input = Decoded::new(encoding, input);
    let (mut at, mut place) = (0_u64, Place { line: 1, column: 1 });
    while order.peek().is_some() {
        let chunk = input.fill_buf()?;
        let length = chunk.len();
        for byte in chunk {
            while let Some(index) = order.next_if(|index| offsets.get(*index) <= Some(&at)) {
                if let Some(slot) = found.get_mut(index) {
                    *slot = place;
                }
            }
            match byte {
                b'\n' => {
                    place = Place {
                        line: place.line + 1,
                        column: 1,
                    }
                }
                // The later bytes of a character of UTF-8.
                0x80..=0xBF => {}
                _ => place.column += 1,
            }
            at += 1;
        }
        if length == 0 {
            break;
        }
        input.consume(length);
    }
    for index in order {
        if let Some(slot) = found.get_mut(index) {
            *slot = place;
        }
    }
    Ok(found)
}

/// The text around places of a document: of each line at most `width`
/// characters on either side, and how many of them are before the place.
/// Places are given as line and column.
///
/// Characters that could steer a terminal are shown as `\u{FFFD}`.
///
/// # Errors
///
/// Those of the source.
pub fn excerpts(
    input: impl BufRead,
    spots: &[(u64, u64)],
    width: usize,
) -> io::Result<Vec<(String, usize)>> {
    let (head, input) = peek(input)?;
    let mut found = vec![(Vec::new(), 0_usize); spots.len()];
    let Ok(encoding) = sniff(&head) else {
        return Ok(vec![(String::new(), 0); spots.len()]);
    };
    let width = width as u64;
    let mut order: Vec<usize> = (0..spots.len()).collect();
    order.sort_by_key(|index| spots.get(*index));
    // Spots before this one in `order` are complete.
    let mut first = 0;
    let mut input = Decoded::new(encoding, input);
    let mut place = Place { line: 1, column: 0 };
    while first < order.len() {
        let chunk = input.fill_buf()?;
        let length = chunk.len();
        if length == 0 {
            break;
        }
        for byte in chunk {
            if *byte == b'\n' {
                place = Place {
                    line: place.line + 1,
                    column: 0,
                };
                continue;
            }
            if !matches!(byte, 0x80..=0xBF) {
                place.column += 1;
            }
            for index in order.iter().skip(first) {
                let Some((line, column)) = spots.get(*index) else {
                    continue;
                };
                if *line > place.line || (*line == place.line && *column > place.column + width) {
                    break;
                }
                let near = *line == place.line && place.column <= column + width;
                match found.get_mut(*index).filter(|_| near) {
                    Some((text, before)) => {
                        text.push(*byte);
                        *before +=
                            usize::from(place.column < *column && !matches!(byte, 0x80..=0xBF));
                    }
                    None => first += usize::from(order.get(first) == Some(index)),
                }
            }
        }
        input.consume(length);
    }
    Ok(found
        .into_iter()
        .map(|(text, before)| (printable(&text), before))
        .collect())
}

fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .chars()
        .map(|c| match c {
            '\t' => ' ',
            c if c.is_control() => '\u{FFFD}',
            c => c,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_and_lines_count_line_feeds() {
        let text = "ab\né😀c\n";
        let at = |needle: &str| text.find(needle).unwrap() as u64;
        let found = places(text.as_bytes(), &[at("c"), 0, at("😀"), 999]).unwrap();
        let pairs: Vec<_> = found
            .iter()
            .map(|place| (place.line, place.column))
            .collect();
        assert_eq!(pairs, [(2, 3), (1, 1), (2, 2), (3, 1)]);
    }

    #[test]
    fn an_excerpt_shows_the_line_around_a_place() {
        let text = "first\nsecond é line\nthird";
        let found = excerpts(text.as_bytes(), &[(2, 8), (3, 1), (1, 5)], 3).unwrap();
        assert_eq!(found[0], ("nd é li".to_owned(), 3));
        assert_eq!(found[1], ("thir".to_owned(), 0));
        assert_eq!(found[2], ("irst".to_owned(), 3));
    }

    #[test]
    fn a_byte_order_mark_takes_no_column() {
        let found = places("\u{FEFF}<a/>".as_bytes(), &[0, 1]).unwrap();
        assert_eq!(found[1], Place { line: 1, column: 2 });
    }
}
