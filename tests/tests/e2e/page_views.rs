//! Every view of the web page with real content: its accessibility, and its pictures in docs/images/page.
//!
//! `make screenshots` runs the ignored test, which writes the pictures. A new view needs content in [`Sample::show`].

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use knockplane_tests::{CLIENT, Filter, FilterOptions, Topology, VISITOR};
use serde_json::json;

use crate::browser::Browser;
use crate::fast_path::{PORT, control, receiver};
use crate::page::{on_page_with, token};
use crate::pictures::with_palette;
use crate::scenario::{eventually, knock, listed, udp_from};
use crate::top::under_traffic;

/// An exported filter of a small office.
const RULES: &str = "/ip firewall address-list
add list=office address=198.51.100.0/24 comment=\"Bonn\"
add list=office address=203.0.113.16/29 comment=\"Lyon\"
add list=telephony address=10.77.0.5 comment=\"the provider of the telephones\"
/ipv6 firewall address-list
add list=office address=2001:db8:77::/48 comment=\"both, over IPv6\"
/ip firewall filter
add action=accept chain=input connection-state=established,related comment=\"what has begun continues\"
add action=drop chain=input connection-state=invalid
add action=add-src-to-address-list address-list=scanners address-list-timeout=1d chain=input protocol=tcp dst-port=23,3389 \
log=yes log-prefix=scan comment=\"scanners, for a day\"
add action=drop chain=input src-address-list=scanners
add action=accept chain=input protocol=udp dst-port=5000-5009 src-address=10.77.0.5 comment=\"the telephones\"
add action=accept chain=input protocol=udp dst-port=5004 src-address=10.77.0.5 comment=\"the conference telephone\"
add action=accept chain=input protocol=tcp dst-port=443,8443 src-address-list=office comment=\"from the offices\"
add action=accept chain=input protocol=tcp dst-port=22 src-address-list=support disabled=yes
add action=jump chain=input jump-target=pings protocol=icmp
add action=accept chain=pings limit=10,20:packet comment=\"ten pings a second\"
add action=drop chain=pings
add action=drop chain=input comment=\"everything else\"
";

const DOORS: &str = r#"
[[door]]
name = "ssh"
knock = ["tcp/7000 syn", "udp/4321", "tcp/1234 syn"]
opens = ["tcp/22"]
for = "1h"

[[door]]
name = "vpn"
knock = ["udp/1194", "icmp", "udp/1194"]
within = "30m"
total = "1h"
opens = ["udp/51820"]
for = "12h"
"#;

/// A third and a fourth source outside.
const GUEST: &str = "10.77.0.4";
const TELEPHONE: &str = "10.77.0.5";

/// Sizes of windows. The narrow one has a finger as its pointer.
const WIDE: (u32, u32) = (1280, 800);
const NARROW: (u32, u32) = (390, 844);

/// Bytes of the largest picture.
const LARGEST: u64 = 60_000;

/// The names of the views in the page, the sign-in, and a change before it is applied.
fn views() -> Vec<String> {
    let main = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../control/page/js/main.js")).expect("a file");
    let line = main.lines().find_map(|line| line.strip_prefix("const VIEWS = {")).expect("the views in one line");
    let (names, _) = line.split_once('}').expect("the end of the views");
    let names = names.split(',').filter_map(|name| name.split(':').next()).map(|name| name.trim().to_owned());
    names.chain(["sign-in".to_owned(), "change".to_owned()]).collect()
}

/// A filter with traffic, and its page.
struct Sample<'s> {
    topology: &'s Topology,
    filter: &'s Filter<'s>,
    browser: &'s Browser,
    token: String,
}

/// Runs a test with the sample, while packets arrive.
fn with_sample(name: &str, test: impl FnOnce(&Sample<'_>) + Send) {
    let options = FilterOptions { sections: DOORS.to_owned(), ..FilterOptions::from_rules(RULES) };
    on_page_with(name, WIDE, &options, |topology, filter, browser| {
        for address in [GUEST, TELEPHONE] {
            topology.client.ip(&format!("addr add {address}/24 dev eth0")).expect("an address");
        }
        let sample = Sample { topology, filter, browser, token: token(filter, "alice", "administer") };
        let (telephone, _receiver) = (udp_from(topology, TELEPHONE, PORT), receiver(topology));
        let stranger = udp_from(topology, VISITOR, PORT);
        under_traffic(&[&telephone, &stranger], || {
            knock(topology, "7000:tcp 4321:udp 1234:tcp");
            eventually("the knock", || listed(filter, "door-ssh", CLIENT));
            control(filter, &["list", "add", "support", "192.0.2.7", "--timeout", "8h", "--comment", "ticket 4711"]);
            udp_from(topology, GUEST, 1194).send(b"1").expect("sent");
            test(&sample);
        });
    });
}

impl Sample<'_> {
    /// Shows a view with content.
    fn show(&self, view: &str) {
        let browser = self.browser;
        self.sign_in();
        // A view with a stream begins without that of another view.
        browser.open("#/status");
        let streams = || self.filter.ask(&["show", "status"]).expect("status")["control"]["event_streams"].clone();
        eventually("no stream", || streams() == 0);
        browser.open(&format!("#/{view}"));
        if matches!(view, "doors" | "live") {
            eventually("a stream", || streams() == 1);
        }
        match view {
            "sign-in" => {
                browser.open("");
                browser.click("Sign out");
                browser.until_text("main", "On the host, knockctl page prints a link");
            }
            "rules" => {
                browser.until_text(".grid", "5004");
                browser.choose("5004");
                browser.until_text(".detail", "K001");
            }
            "change" => {
                browser.open("#/rules");
                browser.choose("5004");
                browser.click("Up");
                browser.until_text("dialog", "1 warning would be gone");
            }
            "lists" => browser.until_text("[aria-label='Entries of address lists']", "ticket 4711"),
            "doors" => {
                browser.until_text("[aria-label='Sources at doors']", "is in");
                browser.until_text("[aria-label='Sources at doors']", "step 1 of 3");
                self.some_events();
                browser.until_text("[aria-label='Events at doors']", "door opened by a knock");
            }
            "live" => {
                self.some_events();
                browser.until_text(".rows", "granted");
                browser.choose("granted");
                browser.until_text(".detail", "door-ssh");
            }
            "explain" => {
                browser.open("#/explain?packet=tcp%20198.51.100.7:4000%20%3E%2010.77.0.2:8443%20syn");
                browser.until_text("main", "forward");
            }
            "import" => {
                let text = "/ip firewall address-list\nadd list=office address=198.51.100.0/24\n/ip firewall filter\n\
                            add action=accept chain=input connection-state=established\n\
                            add action=accept chain=input protocol=tcp dst-port=22 src-address-list=office\n\
                            add action=drop chain=input\nadd action=accept chain=input protocol=tcp dst-port=80\n";
                browser.type_into("textarea", text);
                browser.click("Check");
                browser.until_text("main td", "K001");
            }
            "status" => browser.until_text("main", "Workers"),
            other => panic!("no content for the view `{other}`: add it here"),
        }
    }

    /// Signs in, unless the browser has a session.
    fn sign_in(&self) {
        self.browser.open("");
        let is_signed_in = "document.querySelector('header.top') !== null";
        let asks = "document.querySelector('input[name=token]') !== null";
        self.browser.until("the page", &format!("return {is_signed_in} || {asks}"));
        if self.browser.run(&format!("return {asks}")) == true {
            self.browser.sign_in(&self.token);
        }
    }

    /// A wrong knock, a right one, a scan, and a change by an operator.
    fn some_events(&self) {
        let Sample { topology, filter, .. } = self;
        knock(topology, "7000:tcp 4321:udp 9999:tcp");
        control(filter, &["list", "remove", "door-ssh", CLIENT]);
        knock(topology, "7000:tcp 4321:udp 1234:tcp");
        eventually("the knock", || listed(filter, "door-ssh", CLIENT));
        // The first packet of a scanner is logged; it is in the list afterwards.
        topology.client.run(&format!("nc -w 1 -s {VISITOR} 10.77.0.2 23")).expect("nc");
        eventually("the scan", || listed(filter, "scanners", VISITOR));
        control(filter, &["list", "remove", "scanners", VISITOR]);
        control(filter, &["list", "add", "support", "192.0.2.8", "--timeout", "2h", "--comment", "ticket 4712"]);
        control(filter, &["list", "remove", "support", "192.0.2.8"]);
    }

    /// Sets the size of the window.
    fn resize(&self, (width, height): (u32, u32)) {
        let narrow = width < 500;
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": narrow });
        self.browser.command(self.topology, "Emulation.setDeviceMetricsOverride", &size);
        let touch = json!({ "enabled": narrow });
        self.browser.command(self.topology, "Emulation.setTouchEmulationEnabled", &touch);
        self.browser.until("the size", &format!("return innerWidth === {width}"));
    }

    /// Sets the colours of the system.
    fn colours(&self, scheme: &str) {
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.browser.command(self.topology, "Emulation.setEmulatedMedia", &features);
        self.browser.until("colours", &format!("return matchMedia('(prefers-color-scheme: {scheme})').matches"));
    }
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/images/page")
}

#[test]
fn every_view_is_accessible_in_a_wide_window() {
    with_sample("page-axe", |sample| {
        for view in views() {
            sample.resize(WIDE);
            sample.show(&view);
            for scheme in ["light", "dark"] {
                sample.colours(scheme);
                assert_eq!(sample.browser.violations(), [""; 0], "{view}, {scheme}");
            }
            sample.browser.run("document.querySelector('dialog')?.close()");
        }
    });
}

#[test]
fn every_view_has_pictures_that_are_small_and_in_the_documentation() {
    let page = fs::read_to_string(folder().join("../../page.md")).expect("docs/page.md");
    let mut wanted = Vec::new();
    for view in views() {
        for kind in ["light", "dark", "narrow"] {
            let name = format!("{view}-{kind}.png");
            let size = fs::metadata(folder().join(&name)).map(|file| file.len());
            let size = size.unwrap_or_else(|error| panic!("docs/images/page/{name}: {error}: run make screenshots"));
            assert!(size <= LARGEST, "docs/images/page/{name} has {size} bytes");
            assert!(page.contains(&format!("images/page/{name}")), "docs/page.md has no link to {name}");
            wanted.push(name);
        }
    }
    let mut found: Vec<String> = Vec::new();
    for file in fs::read_dir(folder()).expect("the folder") {
        found.push(file.expect("a file").file_name().to_string_lossy().into_owned());
    }
    found.sort();
    wanted.sort();
    assert_eq!(found, wanted, "a picture of no view");
}

#[test]
#[ignore = "writes docs/images/page: make screenshots"]
fn pictures_of_every_view() {
    with_sample("page-pictures", |sample| {
        fs::create_dir_all(folder()).expect("a folder");
        for view in views() {
            for (size, kinds) in [(WIDE, &[("light", "light"), ("dark", "dark")][..]), (NARROW, &[("narrow", "light")])]
            {
                sample.resize(size);
                sample.show(&view);
                for (kind, scheme) in kinds {
                    sample.colours(scheme);
                    // Toasts have gone, and rates are those of several reads.
                    thread::sleep(Duration::from_millis(2_500));
                    let picture = with_palette(&sample.browser.screenshot());
                    fs::write(folder().join(format!("{view}-{kind}.png")), picture).expect("written");
                }
                sample.browser.run("document.querySelector('dialog')?.close()");
            }
        }
    });
}
