//! Which settings can change while the daemon runs.

use super::{Log, Settings};

impl Settings {
    /// These settings with all of `new` that can change while the daemon
    /// runs, and the names of changed ones that wait for a restart: they name
    /// what is open, bound or started.
    #[must_use]
    pub fn take_over(&self, new: Self) -> (Self, Vec<&'static str>) {
        // A new setting has to say here which of the two it is.
        let Self {
            listen,
            data_dir,
            gateway,
            tls,
            database,
            admin,
            paths,
            limits,
            policy,
            data_key,
            previous_key,
            ring,
            log,
            alerts,
            trace,
            folder: _,
        } = new;
        let changed = [
            ("listen", listen != self.listen),
            ("data_dir", data_dir != self.data_dir),
            ("database.url", database != self.database),
            ("admin", admin != self.admin),
            ("keys.data", data_key != self.data_key),
            ("keys.previous", previous_key != self.previous_key),
            ("keys.ring", ring != self.ring),
            ("log.format", log.format != self.log.format),
            ("alerts", alerts != self.alerts),
            ("trace", trace != self.trace),
        ];
        let settings = Self {
            gateway,
            tls,
            paths,
            limits,
            policy,
            log: Log {
                level: log.level,
                ..self.log.clone()
            },
            ..self.clone()
        };
        let waiting = changed.iter().filter(|(_, changed)| *changed);
        (settings, waiting.map(|(name, _)| *name).collect())
    }
}
