//! Two rules for imports: layers, and no cycles.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;

use crate::source::{Crate, Import, Module, name};

/// A module at the top of a crate, and the other top modules that it may import.
pub(crate) struct Layer {
    pub(crate) module: &'static str,
    pub(crate) may_import: &'static [&'static str],
}

/// The imports that the layers forbid, each as a line of text.
///
/// Imports in tests count. Links in documentation count as well: a layer whose documentation needs a layer above cannot be
/// understood without it. An item of the crate's root belongs to no layer, so that no layer may import one.
pub(crate) fn against_layers(source: &Crate, layers: &[Layer]) -> Vec<String> {
    let mut violations = Vec::new();
    let tops = source.modules.iter().filter_map(|module| module.first()).collect::<BTreeSet<_>>();
    for top in tops.iter().filter(|top| layers.iter().all(|layer| layer.module != **top)) {
        violations.push(format!("`{top}` is in no layer"));
    }
    for layer in layers.iter().filter(|layer| !tops.iter().any(|top| **top == layer.module)) {
        violations.push(format!("the layer `{}` has no module", layer.module));
    }
    for import in &source.imports {
        let Some(layer) = layers.iter().find(|layer| import.from.first().is_some_and(|top| top == layer.module)) else {
            continue;
        };
        let allowed = |top: &String| top == layer.module || layer.may_import.contains(&top.as_str());
        if import.names_root_item || !import.to.first().is_none_or(allowed) {
            violations.push(format!("{import}; `{}` may import {:?} only", layer.module, layer.may_import));
        }
    }
    violations
}

/// The cycles of imports, each as a text with the chain of modules and one import for each arrow.
///
/// Compares the children of each module, each child with all modules inside it. An import between a module and a module
/// inside it does not count, because both are one module in several files. Imports in tests count, links in documentation do
/// not.
pub(crate) fn cycles(source: &Crate) -> Vec<String> {
    let mut graphs: BTreeMap<Module, Graph<'_>> = BTreeMap::new();
    for import in source.imports.iter().filter(|import| !import.is_doc) {
        let common = import.from.iter().zip(&import.to).take_while(|(from, to)| from == to).count();
        if let (Some(from), Some(to)) = (import.from.get(common), import.to.get(common)) {
            graphs.entry(import.from[..common].to_vec()).or_default().add(from, to, import);
        }
    }
    graphs.iter().flat_map(|(parent, graph)| graph.cycles().into_iter().map(|cycle| text(parent, &cycle))).collect()
}

fn text(parent: &[String], cycle: &[&Import]) -> String {
    let child = |import: &Import| name(&import.from[..=parent.len()]);
    let mut chain: Vec<String> = cycle.iter().map(|import| child(import)).collect();
    chain.extend(chain.first().cloned());
    let mut text = chain.join(" → ");
    cycle.iter().for_each(|import| _ = write!(text, "\n    {import}"));
    text
}

/// The imports between the children of one module: the first import for each pair.
#[derive(Default)]
struct Graph<'s>(BTreeMap<&'s str, BTreeMap<&'s str, &'s Import>>);

impl<'s> Graph<'s> {
    fn add(&mut self, from: &'s str, to: &'s str, import: &'s Import) {
        self.0.entry(from).or_default().entry(to).or_insert(import);
    }

    /// One shortest cycle for each child that is part of a cycle, without repetitions.
    fn cycles(&self) -> Vec<Vec<&'s Import>> {
        let (mut cycles, mut seen) = (Vec::new(), BTreeSet::new());
        for start in self.0.keys() {
            if let Some(cycle) = self.shortest(start) {
                let children: BTreeSet<_> = cycle.iter().map(|(child, _)| *child).collect();
                if seen.insert(children) {
                    cycles.push(cycle.into_iter().map(|(_, import)| import).collect());
                }
            }
        }
        cycles
    }

    /// The shortest path from a child back to itself: each child on the path, with its import of the next one.
    fn shortest(&self, start: &'s str) -> Option<Vec<(&'s str, &'s Import)>> {
        let mut ways = VecDeque::from([(start, Vec::new())]);
        let mut visited = BTreeSet::new();
        while let Some((child, way)) = ways.pop_front() {
            for (next, import) in self.0.get(child).into_iter().flatten() {
                let way: Vec<_> = way.iter().copied().chain([(child, *import)]).collect();
                if *next == start {
                    return Some(way);
                }
                if visited.insert(*next) {
                    ways.push_back((next, way));
                }
            }
        }
        None
    }
}
