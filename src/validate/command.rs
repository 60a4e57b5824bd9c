//! The `validate` command: findings of files for a person or a program.
//!
//! Files are streamed. The text form shows the line of the source, because
//! it goes to the person who has the file; the JSON form never holds text of
//! a message.

use super::{Edition, Mode, Tolerance, Verdict, validate};
use crate::domain::{Finding, Language, Severity};
use crate::parse;
use serde::Serialize;
use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};

/// Bytes read from a file at a time.
const BUFFER_BYTES: usize = 64 * 1024;
/// Characters of a source line shown on either side of a finding.
const SHOWN: usize = 60;

/// How findings are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `file:line:column: severity: code: message`, with the source.
    Text,
    /// One JSON object a line and file.
    Json,
}

/// Every file is valid.
pub const VALID: u8 = 0;
/// A file has a finding of severity error.
pub const INVALID: u8 = 1;
/// A file cannot be read.
pub const UNREADABLE: u8 = 2;

/// Judges files and writes what was found; gives the exit code.
///
/// `tolerance` is what is forgiven; `None` asks for the bare verdict of the
/// schema.
///
/// # Errors
///
/// Only those of `out`; a file that cannot be read is reported there.
pub fn run(
    files: &[PathBuf],
    edition: &Edition,
    format: Format,
    tolerance: Option<&Tolerance>,
    out: &mut impl Write,
) -> io::Result<u8> {
    let mode = tolerance.map_or(Mode::SchemaOnly, Mode::Tolerant);
    let mut code = VALID;
    for file in files {
        match judge(file, edition, mode) {
            Ok(verdict) => {
                if !verdict.is_valid() {
                    code = code.max(INVALID);
                }
                match format {
                    Format::Text => write_text(file, &verdict, out)?,
                    Format::Json => write_json(file, edition, &verdict, out)?,
                }
            }
            Err(cause) => {
                code = UNREADABLE;
                write_unreadable(file, edition, format, &cause, out)?;
            }
        }
    }
    Ok(code)
}

fn open(file: &Path) -> io::Result<BufReader<File>> {
    Ok(BufReader::with_capacity(BUFFER_BYTES, File::open(file)?))
}

fn judge(file: &Path, edition: &Edition, mode: Mode<'_>) -> io::Result<Verdict> {
    let mut verdict = validate(edition, open(file)?, mode)?;
    if !verdict.findings.is_empty() {
        verdict.locate(open(file)?)?;
    }
    Ok(verdict)
}

fn write_text(file: &Path, verdict: &Verdict, out: &mut impl Write) -> io::Result<()> {
    let name = file.display();
    let sources = sources(file, &verdict.findings).unwrap_or_default();
    for (finding, source) in verdict
        .findings
        .iter()
        .zip(sources.iter().map(Some).chain(std::iter::repeat(None)))
    {
        let (line, column) = (finding.line, finding.column);
        let (severity, code) = (finding.severity.as_str(), finding.code);
        let message = finding.message(Language::English);
        write!(out, "{name}:{line}:{column}: {severity}: {code}: {message}")?;
        if finding.path.is_empty() {
            writeln!(out)?;
        } else {
            writeln!(out, " [{}]", finding.path)?;
        }
        if let Some(source) = source {
            writeln!(out, "    {}", source.text)?;
            writeln!(out, "    {}^", " ".repeat(source.before))?;
        }
    }
    if verdict.is_valid() {
        let message = verdict
            .message
            .as_ref()
            .map_or("", |message| message.name.as_str());
        writeln!(out, "{name}: valid ({message})")?;
    }
    Ok(())
}

/// A piece of the source around a finding.
#[derive(Clone, Default)]
struct Source {
    text: String,
    /// Characters before the place.
    before: usize,
}

/// The source around each finding, in one more pass over the file.
fn sources(file: &Path, findings: &[Finding]) -> io::Result<Vec<Source>> {
    if findings.is_empty() {
        return Ok(Vec::new());
    }
    let spots: Vec<_> = findings
        .iter()
        .map(|finding| (finding.line, finding.column))
        .collect();
    let found = parse::excerpts(open(file)?, &spots, SHOWN)?;
    Ok(found
        .into_iter()
        .map(|(text, before)| Source { text, before })
        .collect())
}

#[derive(Serialize)]
struct Report<'a> {
    file: String,
    valid: bool,
    message_type: Option<&'a str>,
    edition: &'a str,
    findings: Vec<Entry<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Serialize)]
struct Entry<'a> {
    code: &'a str,
    severity: &'a str,
    path: &'a str,
    line: u64,
    column: u64,
    message: String,
}

fn write_json(
    file: &Path,
    edition: &Edition,
    verdict: &Verdict,
    out: &mut impl Write,
) -> io::Result<()> {
    let findings = verdict.findings.iter().map(|finding| Entry {
        code: finding.code.as_str(),
        severity: Severity::as_str(finding.severity),
        path: &finding.path,
        line: finding.line,
        column: finding.column,
        message: finding.message(Language::English),
    });
    write_line(
        &Report {
            file: file.display().to_string(),
            valid: verdict.is_valid(),
            message_type: verdict
                .message
                .as_ref()
                .map(|message| message.name.as_str()),
            edition: edition.name(),
            findings: findings.collect(),
            error: None,
        },
        out,
    )
}

fn write_line(report: &Report<'_>, out: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer(&mut *out, report)?;
    writeln!(out)
}

fn write_unreadable(
    file: &Path,
    edition: &Edition,
    format: Format,
    cause: &io::Error,
    out: &mut impl Write,
) -> io::Result<()> {
    match format {
        Format::Text => writeln!(out, "{}: cannot be read: {cause}", file.display()),
        Format::Json => write_line(
            &Report {
                file: file.display().to_string(),
                valid: false,
                message_type: None,
                edition: edition.name(),
                findings: Vec::new(),
                error: Some(format!("cannot be read: {cause}")),
            },
            out,
        ),
    }
}
