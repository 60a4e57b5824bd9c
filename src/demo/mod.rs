//! The main job on built-in samples.

/// Runs the demo.
///
/// # Errors
///
/// What went wrong.
pub fn run(_once: bool) -> Result<(), String> {
    Err("not yet".to_owned())
}
