//! The file of the settings, which is read again while the daemon runs.
//!
//! An editor that empties a file before it writes, a copy on its way and a full
//! disk leave a file that is shorter and often valid. At a start nobody can tell
//! it from what was meant. A reload can: what was set is not set any more. It
//! refuses that instead of taking a default that nobody chose, and says how to
//! go on. Two looks at the file with a pause between them would not do: a copy
//! that hangs and a full disk leave it as it is.

use std::path::{Path, PathBuf};

use super::{DEFAULT_PATH, Settings};
use crate::toml_file::{Fault, TomlFile};

/// Trust that is withdrawn by taking it out: no other value says so, and a file
/// that lacks it by accident lets nobody in.
const WITHDRAWN: &[&str] = &["tls.client_ca", "keys.previous"];

/// The file that the settings in use came from.
pub struct SettingsFile {
    path: Option<PathBuf>,
    file: TomlFile,
}

impl SettingsFile {
    /// Loads the settings as [`Settings::load`] does.
    ///
    /// # Errors
    ///
    /// As [`Settings::load`].
    pub fn load(path: Option<&Path>) -> Result<(Settings, Self), Fault> {
        let file = Self::open(path)?;
        Ok((file.settings()?, file))
    }

    /// Reads the file as it is now; what is given takes the place of this when
    /// its settings are in use.
    ///
    /// # Errors
    ///
    /// As [`Settings::load`], and a [`Fault`] for a file that looks half
    /// written: a key is gone, or it ends in the middle of a line with a value
    /// that is new.
    pub fn read_again(&self) -> Result<(Settings, Self), Fault> {
        let now = Self::open(self.path.as_deref())?;
        if let Some(key) = self.file.missing_in(&now.file, WITHDRAWN) {
            let problem = "was set and is gone, as in a file that is half written: write it with \
                           the value that it is to have, or restart to take its default";
            return Err(now.file.fault(key, problem));
        }
        if let Some(key) = now.file.broken_off_since(&self.file) {
            let problem = "the file ends in the middle of this line, as one that is half written: \
                           end it with a line break";
            return Err(now.file.fault(key, problem));
        }
        Ok((now.settings()?, now))
    }

    fn open(path: Option<&Path>) -> Result<Self, Fault> {
        let standard = Path::new(DEFAULT_PATH);
        let file = match path {
            Some(path) => TomlFile::open(path)?,
            None if standard.exists() => TomlFile::open(standard)?,
            None => TomlFile::parse(DEFAULT_PATH, String::new())?,
        };
        Ok(Self {
            path: path.map(Path::to_owned),
            file,
        })
    }

    fn settings(&self) -> Result<Settings, Fault> {
        let environment = |name: &str| std::env::var(name).ok();
        let path = self.path.as_deref().unwrap_or(Path::new(DEFAULT_PATH));
        let folder = path.parent().unwrap_or(Path::new(""));
        Settings::read(&self.file, folder, &environment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "listen = \"127.0.0.1:1\"\n# Where it is kept.\n[limits]\n\
                         receipt_days = 100\nreplay_days = 2\n";

    /// What is said when the file becomes `now`.
    fn said(before: &str, now: &str) -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.toml");
        std::fs::write(&path, before).unwrap();
        let (_, file) = SettingsFile::load(Some(&path)).unwrap();
        std::fs::write(&path, now).unwrap();
        let fault = file.read_again().err()?;
        assert_eq!(fault.file, path.display().to_string());
        Some(format!("{} {}", fault.key, fault.problem))
    }

    #[test]
    fn no_part_of_a_file_is_taken_for_the_whole() {
        let last = WHOLE.len() - 1;
        for length in 0..last {
            assert!(said(WHOLE, &WHOLE[..length]).is_some(), "{length} bytes");
        }
        assert_eq!(said(WHOLE, &WHOLE[..last]), None, "nothing is missing");
        let gone = said(WHOLE, "").unwrap();
        assert!(gone.starts_with("limits was set and is gone"), "{gone}");
    }

    #[test]
    fn trust_is_withdrawn_by_taking_it_out() {
        let trusting = format!("{WHOLE}[tls]\nclient_ca = \"ca.pem\"\ncert = \"a\"\nkey = \"b\"\n");
        let less = trusting.replace("client_ca = \"ca.pem\"\n", "");
        assert_eq!(said(&trusting, &less), None);
        let none = trusting.replace("cert = \"a\"\n", "");
        assert!(said(&trusting, &none).is_some());
    }

    #[test]
    fn no_part_of_another_file_gives_up_what_was_set() {
        let longer = WHOLE.replace("100", "1000").replace("= 2", "= 30") + "dead_days = 40\n";
        let all = longer.find("dead_days").unwrap();
        for length in 0..all - 1 {
            assert!(said(WHOLE, &longer[..length]).is_some(), "{length} bytes");
        }
        let cut = said(WHOLE, longer[..all].trim_end()).unwrap();
        assert!(cut.starts_with("limits.replay_days the file ends"), "{cut}");
        assert_eq!(said(WHOLE, &longer), None);
        let moved = "limits.replay_days = 2\nlimits.receipt_days = 9\nlisten = \"127.0.0.1:1\"";
        assert_eq!(said(WHOLE, moved), None, "the same keys in another order");
    }
}
