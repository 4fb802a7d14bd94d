//! The positions of an entry's properties in the file, for later findings about the entry.

use std::ops::Range;

/// The positions of an entry without problems.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceSpans {
    /// The verb of its `add`.
    pub(super) verb: Range<usize>,
    /// The values of its properties, by name.
    pub(super) values: Vec<(&'static str, Range<usize>)>,
}

impl SourceSpans {
    /// Maps every position.
    pub(super) fn relocate(&mut self, to: impl Fn(&Range<usize>) -> Range<usize>) {
        self.verb = to(&self.verb);
        self.values.iter_mut().for_each(|(_, span)| *span = to(span));
    }

    /// The bytes of a property's value.
    pub fn value(&self, property: &str) -> Option<Range<usize>> {
        self.values.iter().find(|(name, _)| *name == property).map(|(_, span)| span.clone())
    }

    /// The bytes of the `add` on its first line, up to its last value on this line.
    pub fn first_line(&self, text: &[u8]) -> Range<usize> {
        let rest = text.get(self.verb.start..).unwrap_or_default();
        let line = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(rest.len());
        let line = self.verb.start..self.verb.start + line;
        let ends = self.values.iter().filter(|(_, span)| line.contains(&span.start)).map(|(_, span)| span.end);
        self.verb.start..ends.fold(self.verb.end, usize::max).min(line.end)
    }
}

#[cfg(test)]
mod tests {
    use super::super::read;

    #[test]
    fn values_are_found_at_their_last_position() {
        let text = "/ip firewall filter\nadd chain=input \\\n  protocol=tcp dst-port=1; add chain=\"a b\" action=drop; \n\
                    set 0 dst-port=2\n";
        let reading = read(text.as_bytes());
        let [first, second] = &reading.rule_spans[..] else { panic!("{reading:?}") };
        let value = |property| first.value(property).map(|span| &text[span]);
        assert_eq!((value("protocol"), value("dst-port"), value("action")), (Some("tcp"), Some("2"), None));
        assert_eq!(&text[first.first_line(text.as_bytes())], "add chain=input");
        assert_eq!(&text[second.first_line(text.as_bytes())], "add chain=\"a b\" action=drop");
    }
}
