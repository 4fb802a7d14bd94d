//! The entries of the rule menus and of `/ip firewall layer7-protocol`, in the form for commands. `filter` and `layer7`
//! parse their words.

use super::kind::Kind;
use super::lexer::Text;
use super::menu::Menu;
use super::problem::Problems;
use super::property::{self, Add};
use super::{filter, layer7};
use crate::packet::Family;
use crate::rule::Table;

/// `filter` or `raw` of one family.
#[derive(Debug)]
pub(super) struct Rules(pub(super) Table, pub(super) Family);

impl Kind for Rules {
    type Entry = filter::RuleDraft;
    const ORDERED: bool = true;

    fn path(&self) -> &'static str {
        Menu::Rules(self.0, self.1).path()
    }

    fn knows(&self, name: &Text) -> bool {
        property::knows(filter::PROPERTIES, name)
    }

    fn read(&self, add: &Add<'_>, problems: &mut Problems) -> filter::RuleDraft {
        filter::read(self.0, self.1, add, problems)
    }

    fn default(&self, name: &[u8]) -> &'static [u8] {
        match name {
            b"action" => b"accept",
            b"disabled" | b"dynamic" | b"log" => b"no",
            _ => b"",
        }
    }
}

/// Layer-7 patterns.
#[derive(Debug)]
pub(super) struct Patterns;

impl Kind for Patterns {
    type Entry = layer7::PatternDraft;
    const NAMED: bool = true;

    fn path(&self) -> &'static str {
        Menu::Layer7.path()
    }

    fn knows(&self, name: &Text) -> bool {
        property::knows(layer7::PROPERTIES, name)
    }

    fn read(&self, add: &Add<'_>, problems: &mut Problems) -> layer7::PatternDraft {
        layer7::read(add, problems)
    }
}
