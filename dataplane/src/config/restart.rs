//! The keys that need a restart.

use knockplane_engine::state::lists::FirstStepSettings;

use super::Config;

impl Config {
    /// The keys that another read of the file has changed and that cannot take effect while frames are in flight: all
    /// of `[dataplane]`.
    pub(crate) fn waiting(&self, new: &Config) -> Vec<&'static str> {
        // A new part of the configuration must be considered here.
        let Config {
            file: _,
            settings: _,
            metrics: _,
            outside,
            inside,
            rules,
            socket,
            socket_uids,
            state_dir,
            cores,
            busy_poll,
            ring_size,
            zero_copy,
            require,
            dedicated,
            offloads,
            list_capacity,
            first_steps: FirstStepSettings { quota, v4_length, v6_length, v6_by_prefix },
            connection_capacity,
            fast_path_flows,
        } = self;
        let keys = [
            ("outside", *outside != new.outside),
            ("inside", *inside != new.inside),
            ("rules", *rules != new.rules),
            ("socket", *socket != new.socket),
            ("socket-uids", *socket_uids != new.socket_uids),
            ("state-dir", *state_dir != new.state_dir),
            ("cores", *cores != new.cores),
            ("busy-poll", *busy_poll != new.busy_poll),
            ("ring-size", *ring_size != new.ring_size),
            ("zero-copy", *zero_copy != new.zero_copy),
            ("require", *require != new.require),
            ("dedicated", *dedicated != new.dedicated),
            ("offloads", *offloads != new.offloads),
            ("list-capacity", *list_capacity != new.list_capacity),
            ("first-step-quota", *quota != new.first_steps.quota),
            ("quota-prefix-v4", *v4_length != new.first_steps.v4_length),
            ("quota-prefix-v6", *v6_length != new.first_steps.v6_length),
            ("ipv6-first-steps", *v6_by_prefix != new.first_steps.v6_by_prefix),
            ("connection-capacity", *connection_capacity != new.connection_capacity),
            ("fast-path", fast_path_flows.is_some() != new.fast_path_flows.is_some()),
            ("fast-path-flows", fast_path_flows.zip(new.fast_path_flows).is_some_and(|(old, new)| old != new)),
        ];
        keys.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn doors_and_policy_are_taken_over_and_the_rest_waits_for_a_restart() {
        let read = |text: &str| Config::parse(Path::new("k.toml"), text).expect("valid");
        let head = "[dataplane]\noutside = \"eth1\"\ninside = \"eth2\"\nrules = \"a.rsc\"\n";
        let running = read(head);
        let door = "[[door]]\nname = \"a\"\nknock = [\"tcp/7\"]\n[metrics]\ncomments = false\n[policy]\nprotect = [\"192.0.2.0/24\"]\n";
        assert_eq!(running.waiting(&read(&format!("{head}{door}"))), [""; 0]);
        let other = head.replace("eth2", "eth3") + "ring-size = 64\nquota-prefix-v6 = 48\n[control]\nlisten = 7\n";
        assert_eq!(running.waiting(&read(&other)), ["inside", "ring-size", "quota-prefix-v6"]);
    }
}
