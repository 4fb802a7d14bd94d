//! A browser: Debian's chromium, driven by WebDriver (<https://www.w3.org/TR/webdriver2/>), in the namespace of the filter, where the
//! page is on loopback.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use fantoccini::actions::{InputSource as _, KeyAction, KeyActions, MOUSE_BUTTON_LEFT, PointerAction};
use fantoccini::actions::{MouseActions, TouchActions};
use fantoccini::elements::Element;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use knockplane_tests::{Process, Topology, run};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// The address of the page.
pub(crate) const PAGE: &str = "http://127.0.0.1:9480/";

/// The port of the driver, in the namespace.
const DRIVER: u16 = 9515;

const PATIENCE: Duration = Duration::from_secs(20);

/// A pointer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pointer {
    Mouse,
    /// A finger, which rests before it moves.
    Touch,
}

/// A window of the browser. All methods wait, and panic if the browser does not do what they say.
pub(crate) struct Browser {
    runtime: Runtime,
    client: Client,
}

/// Runs a test with a window of this size, in pixels, and with files in this folder. The browser ends also if the test fails.
pub(crate) fn with_browser(
    topology: &Topology,
    folder: &Path,
    (width, height): (u32, u32),
    test: impl FnOnce(&Browser) + Send,
) {
    let profile = folder.join("browser");
    let log = File::create(folder.join("chromedriver.log")).expect("a file");
    let passed = topology.filter.within(|| {
        let mut command = topology.filter.command("chromedriver");
        command.arg(format!("--port={DRIVER}")).stdout(log.try_clone()?);
        let driver = Process::start_with("chromedriver", &mut command, log)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let options = json!({
            "binary": "/usr/bin/chromium",
            // The pipe ends the browser with its driver. The sandbox does not work for root.
            "args": [
                "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe",
                format!("--user-data-dir={}", profile.display()), format!("--window-size={width},{height}"),
            ],
        });
        let logs = json!({ "browser": "ALL" });
        let capabilities = json!({ "browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": logs });
        let capabilities = capabilities.as_object().cloned().unwrap_or_default();
        let (begin, address) = (Instant::now(), format!("http://127.0.0.1:{DRIVER}"));
        let client = loop {
            let mut builder = ClientBuilder::new(HttpConnector::new());
            match runtime.block_on(builder.capabilities(capabilities.clone()).connect(&address)) {
                Ok(client) => break client,
                Err(error) if begin.elapsed() > PATIENCE => return Err(error.into()),
                Err(_) => thread::sleep(Duration::from_millis(100)),
            }
        };
        let browser = Browser { runtime, client };
        let passed = catch_unwind(AssertUnwindSafe(|| test(&browser)));
        let Browser { runtime, client } = browser;
        let closed = runtime.block_on(client.close());
        drop(driver);
        // A browser that has ended is a failure of the test that expected it.
        if passed.is_ok() {
            closed?;
        }
        Ok(passed)
    });
    if let Err(panic) = passed.expect("a browser (packages chromium and chromium-driver)") {
        resume_unwind(panic);
    }
}

impl Browser {
    /// Opens the page with this fragment.
    pub(crate) fn open(&self, fragment: &str) {
        self.visit(&format!("{PAGE}{fragment}"));
    }

    /// Opens any address.
    pub(crate) fn visit(&self, address: &str) {
        self.runtime.block_on(self.client.goto(address)).expect("the page opens");
    }

    /// Gives the window another size, in pixels.
    pub(crate) fn resize(&self, (width, height): (u32, u32)) {
        self.runtime.block_on(self.client.set_window_size(width, height)).expect("the window changes its size");
    }

    /// Signs in, and waits for the frame of the page.
    pub(crate) fn sign_in(&self, token: &str) {
        self.open("");
        self.type_into("input[name=token]", token);
        self.click("Sign in");
        self.until("signed in", "return document.querySelector('header.top') !== null");
    }

    /// The errors and warnings of the console since the last call: of scripts, of requests that failed, and of what the
    /// Content-Security-Policy refused.
    pub(crate) fn console(&self, topology: &Topology) -> Vec<String> {
        let answer = self.ask_driver(topology, "se/log", &json!({ "type": "browser" }));
        let lines = answer.as_array().expect("lines").iter();
        let severe = lines.filter(|line| line["level"] == "SEVERE" || line["level"] == "WARNING");
        severe.map(|line| line["message"].to_string()).collect()
    }

    /// The result of a command of the protocol of DevTools.
    pub(crate) fn command(&self, topology: &Topology, name: &str, parameters: &Value) -> Value {
        self.ask_driver(topology, "goog/cdp/execute", &json!({ "cmd": name, "params": parameters }))
    }

    /// The answer to a request that is no part of the WebDriver standard.
    fn ask_driver(&self, topology: &Topology, path: &str, body: &Value) -> Value {
        let session = self.runtime.block_on(self.client.session_id()).expect("an answer").expect("a session");
        let mut command = topology.filter.command("curl");
        command.args(["--silent", "--show-error", "--max-time", "20", "-d", &body.to_string()]);
        let answer = run(command.arg(format!("http://127.0.0.1:{DRIVER}/session/{session}/{path}"))).expect("curl");
        let answer: Value = serde_json::from_str(&answer.stdout).unwrap_or_else(|error| panic!("{error}: {answer:?}"));
        assert!(answer["value"]["error"].is_null(), "{path} {body}: {answer}");
        answer["value"].clone()
    }

    /// The window as a PNG file.
    pub(crate) fn screenshot(&self) -> Vec<u8> {
        self.runtime.block_on(self.client.screenshot()).expect("a picture")
    }

    /// The serious and critical violations of the rules of accessibility that axe-core finds.
    pub(crate) fn violations(&self) -> Vec<String> {
        const AXE: &str = include_str!("../../vendor/axe-core/axe.min.js");
        if self.run("return window.axe === undefined") == true {
            self.run(AXE);
        }
        let found = self.run(
            "return axe.run(document).then(({ violations, passes }) => [...violations, \
             ...(passes.length > 9 ? [] : [{ id: 'few rules were applied', impact: 'critical', nodes: [] }])] \
             .filter(({ impact }) => impact === 'serious' || impact === 'critical') \
             .map(({ id, nodes }) => `${id}: ${nodes.map(({ html, failureSummary }) => `${html} ${failureSummary}`).join('; ')}`))",
        );
        found.as_array().expect("violations").iter().map(ToString::to_string).collect()
    }

    /// The result of a function body in the page.
    pub(crate) fn run(&self, script: &str) -> Value {
        self.runtime.block_on(self.client.execute(script, Vec::new())).expect(script)
    }

    /// Waits until a function body returns true.
    pub(crate) fn until(&self, what: &str, script: &str) {
        let begin = Instant::now();
        while self.run(script) != true {
            assert!(begin.elapsed() < PATIENCE, "{what}: {}", self.text("body"));
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until the text of an element contains this.
    pub(crate) fn until_text(&self, css: &str, text: &str) {
        let arguments = json!([css, text]);
        self.until(
            text,
            &format!(
                "const [css, text] = {arguments}; \
                 return [...document.querySelectorAll(css)].some((one) => one.checkVisibility() && one.textContent.includes(text))"
            ),
        );
    }

    /// The visible text of the first such element; empty without one.
    pub(crate) fn text(&self, css: &str) -> String {
        let found = self.run(&format!("return document.querySelector({})?.innerText ?? ''", json!(css)));
        found.as_str().unwrap_or_default().to_owned()
    }

    /// Replaces the text of an input.
    pub(crate) fn type_into(&self, css: &str, text: &str) {
        let input = self.wait_for(Locator::Css(css));
        self.runtime
            .block_on(async {
                input.clear().await?;
                input.send_keys(text).await
            })
            .expect(css);
    }

    /// Clicks the last enabled button with this text: that of a dialog is behind those of the page.
    pub(crate) fn click(&self, text: &str) {
        let path = format!("(//button[not(@disabled) and normalize-space()='{text}'])[last()]");
        let button = self.wait_for(Locator::XPath(&path));
        self.runtime.block_on(button.click()).expect(text);
    }

    /// Chooses a value of a list.
    pub(crate) fn select(&self, css: &str, value: &str) {
        let list = self.wait_for(Locator::Css(css));
        self.runtime.block_on(list.select_by_value(value)).expect(css);
    }

    /// Presses keys together.
    pub(crate) fn press(&self, keys: &[char]) {
        let down = keys.iter().map(|key| KeyAction::Down { value: *key });
        let up = keys.iter().rev().map(|key| KeyAction::Up { value: *key });
        let actions = down.chain(up).fold(KeyActions::new("keyboard".to_owned()), KeyActions::then);
        self.runtime.block_on(self.client.perform_actions(actions)).expect("the keys are pressed");
    }

    /// Types a text where the focus is.
    pub(crate) fn type_text(&self, text: &str) {
        text.chars().for_each(|letter| self.press(&[letter]));
    }

    /// Drags the first row of a table whose text contains `row` to the upper half of the one that contains `target`.
    pub(crate) fn drag(&self, row: &str, target: &str, pointer: Pointer) {
        self.drag_to(row, target, -5.0, pointer);
    }

    /// Drags a row to the lower half of another one, with the mouse.
    pub(crate) fn drag_behind(&self, row: &str, target: &str) {
        self.drag_to(row, target, 5.0, Pointer::Mouse);
    }

    /// `y`: pixels below the middle of the target.
    fn drag_to(&self, row: &str, target: &str, y: f64, pointer: Pointer) {
        let [row, target] = [row, target].map(|text| self.row(text));
        let to = |element: Element, y, milliseconds| {
            let duration = Some(Duration::from_millis(milliseconds));
            PointerAction::MoveToElement { element, duration, x: 0.0, y }
        };
        let begin = [to(row, 0.0, 0), PointerAction::Down { button: MOUSE_BUTTON_LEFT }];
        let rest = PointerAction::Pause { duration: Duration::from_secs(1) };
        let end = [to(target, y, 500), PointerAction::Up { button: MOUSE_BUTTON_LEFT }];
        let dragged = match pointer {
            Pointer::Mouse => {
                let mouse =
                    begin.into_iter().chain(end).fold(MouseActions::new("mouse".to_owned()), MouseActions::then);
                self.runtime.block_on(self.client.perform_actions(mouse))
            }
            Pointer::Touch => {
                let actions = begin.into_iter().chain([rest]).chain(end);
                let finger = actions.fold(TouchActions::new("finger".to_owned()), TouchActions::then);
                self.runtime.block_on(self.client.perform_actions(finger))
            }
        };
        dragged.expect("the row is dragged");
    }

    /// Clicks the first row of a table whose text contains this.
    pub(crate) fn choose(&self, text: &str) {
        self.runtime.block_on(self.row(text).click()).expect(text);
    }

    fn row(&self, text: &str) -> Element {
        let path = format!("//*[@role='row' and not(contains(@class, 'heading')) and contains(., '{text}')]");
        self.wait_for(Locator::XPath(&path))
    }

    fn wait_for(&self, locator: Locator<'_>) -> Element {
        let waiting = self.client.wait().at_most(PATIENCE).for_element(locator);
        self.runtime.block_on(waiting).unwrap_or_else(|error| panic!("{locator:?}: {error}: {}", self.text("body")))
    }
}
