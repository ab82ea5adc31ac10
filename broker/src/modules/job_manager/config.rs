//! What does the job manager read from the configuration?

use super::housekeeping;
use crate::service::RpcError;
use flux_formats::errno;
use flux_formats::fsd::Fsd;
use serde_json::Value;

/// Table `[job-manager]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Config {
    /// `stop-queues-on-restart`.
    pub(super) stop_queues_on_restart: bool,
    /// `inactive-age-limit`, seconds.
    pub(super) inactive_age_limit: Option<f64>,
    /// `inactive-num-limit`.
    pub(super) inactive_num_limit: Option<usize>,
    /// Table `housekeeping`, if there is one.
    pub(super) housekeeping: Option<housekeeping::Config>,
}

impl Config {
    /// Reads and checks the table.
    ///
    /// # Errors
    /// EINVAL with a text that names the key.
    pub(super) fn read(config: &Value) -> Result<Self, RpcError> {
        let bad = |key: &str, what: &str| RpcError::new(errno::EINVAL, format!("job-manager.{key}: {what}"));
        let Some(table) = config.get("job-manager") else {
            return Ok(Config::default());
        };
        let mut read = Config {
            housekeeping: housekeeping::Config::read(config)?,
            ..Config::default()
        };
        if let Some(stop) = table.get("stop-queues-on-restart") {
            read.stop_queues_on_restart = stop
                .as_bool()
                .ok_or_else(|| bad("stop-queues-on-restart", "must be a boolean"))?;
        }
        if let Some(limit) = table.get("inactive-age-limit") {
            let limit = limit.as_str().and_then(|text| text.parse::<Fsd>().ok());
            let limit = limit.ok_or_else(|| bad("inactive-age-limit", "invalid FSD"))?;
            read.inactive_age_limit = Some(limit.as_secs_f64());
        }
        if let Some(limit) = table.get("inactive-num-limit") {
            let limit = limit
                .as_i64()
                .ok_or_else(|| bad("inactive-num-limit", "must be an integer"))?;
            if limit != -1 {
                let limit = usize::try_from(limit).map_err(|_| bad("inactive-num-limit", "must be >= 0"))?;
                read.inactive_num_limit = Some(limit);
            }
        }
        Ok(read)
    }

    /// Returns true when inactive jobs are purged.
    pub(super) fn purges(&self) -> bool {
        self.inactive_age_limit.is_some() || self.inactive_num_limit.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_and_refuses() {
        assert_eq!(Config::read(&json!({})).unwrap(), Config::default());
        let table = json!({"job-manager": {"stop-queues-on-restart": true, "inactive-age-limit": "1h", "inactive-num-limit": 10}});
        let config = Config::read(&table).unwrap();
        assert_eq!(config.inactive_age_limit, Some(3600.0));
        assert!(config.purges() && config.stop_queues_on_restart);
        for bad in [
            json!({"inactive-age-limit": "x"}),
            json!({"inactive-age-limit": 3}),
            json!({"inactive-num-limit": -2}),
            json!({"inactive-num-limit": "3"}),
            json!({"stop-queues-on-restart": 1}),
        ] {
            let err = Config::read(&json!({"job-manager": bad})).unwrap_err();
            assert_eq!(err.errnum, errno::EINVAL);
        }
    }
}
