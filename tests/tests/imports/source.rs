//! Reads the modules of a crate, and the paths by which each module names others.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use proc_macro2::{LineColumn, TokenStream, TokenTree};
use syn::visit::{self, Visit};

/// The path of a module in its crate. The path of the root is empty.
pub(crate) type Module = Vec<String>;

/// The modules of one crate and their imports.
pub(crate) struct Crate {
    pub(crate) modules: BTreeSet<Module>,
    pub(crate) imports: Vec<Import>,
}

/// One path in a source file that names a module of the same crate or an item in it: by `use`, inline, in a macro's
/// arguments or in a doc comment.
pub(crate) struct Import {
    file: PathBuf,
    line: usize,
    pub(crate) from: Module,
    /// The path as it is written.
    path: String,
    /// The longest prefix of the path that is a module.
    pub(crate) to: Module,
    /// The path is in a doc comment: the compiler does not need the module.
    pub(crate) is_doc: bool,
    /// The path names an item of the crate's root, which is no module.
    pub(crate) names_root_item: bool,
}

impl fmt::Display for Import {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Import { file, line, from, path, is_doc, .. } = self;
        let verb = if *is_doc { "links to" } else { "imports" };
        write!(f, "{}:{line}: `{}` {verb} `{path}`", file.display(), name(from))
    }
}

/// A module as messages show it.
pub(crate) fn name(module: &[String]) -> String {
    if module.is_empty() { "crate".to_owned() } else { module.join("::") }
}

impl Crate {
    /// Reads the crate whose root is this file, with all modules that it declares, those of tests included.
    ///
    /// # Errors
    /// If the file of a declared module cannot be read or parsed.
    pub(crate) fn read(root: &Path) -> anyhow::Result<Crate> {
        let mut reader = Reader::default();
        reader.file(root, Vec::new(), root.parent().context("the root file has no folder")?)?;
        let Reader { modules, found } = reader;
        let imports = found.into_iter().map(|found| found.resolve(&modules)).collect();
        Ok(Crate { modules, imports })
    }
}

/// A path before it is resolved. All modules must be known first.
struct Found {
    file: PathBuf,
    line: usize,
    from: Module,
    segments: Vec<String>,
    is_doc: bool,
}

impl Found {
    fn resolve(self, modules: &BTreeSet<Module>) -> Import {
        let Found { file, line, from, segments, is_doc } = self;
        let (mut to, mut rest) = (from.clone(), segments.iter());
        if segments[0] == "crate" {
            to.clear();
            rest.next();
        }
        let mut names_root_item = false;
        for segment in rest {
            match segment.as_str() {
                "self" => {}
                "super" => _ = to.pop(),
                _ => {
                    to.push(segment.clone());
                    if !modules.contains(&to) {
                        to.pop();
                        names_root_item = to.is_empty();
                        break;
                    }
                }
            }
        }
        Import {
            file,
            line,
            from,
            path: segments.join("::").trim_end_matches("::self").to_owned(),
            to,
            is_doc,
            names_root_item,
        }
    }
}

#[derive(Default)]
struct Reader {
    modules: BTreeSet<Module>,
    found: Vec<Found>,
}

impl Reader {
    /// Reads the file of a module. The files of its children are in `folder`.
    fn file(&mut self, file: &Path, module: Module, folder: &Path) -> anyhow::Result<()> {
        let text = fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
        let syntax = syn::parse_file(&text).with_context(|| format!("{} cannot be parsed", file.display()))?;
        ensure!(self.modules.insert(module.clone()), "{}: {} is declared twice", file.display(), name(&module));
        let mut visitor = Paths { file, module, folder: folder.to_owned(), reader: self, children: Vec::new() };
        visitor.visit_file(&syntax);
        let children = visitor.children;
        children.into_iter().try_for_each(|Child { module, file, folder }| self.file(&file, module, &folder))
    }
}

/// A module in a separate file.
struct Child {
    module: Module,
    file: PathBuf,
    /// The folder of its children's files.
    folder: PathBuf,
}

impl Child {
    /// Finds the file of a module that a file in `folder` declares.
    fn find(module: Module, folder: &Path) -> Child {
        let name = module.last().map(String::as_str).unwrap_or_default();
        let (alone, nested) = (folder.join(format!("{name}.rs")), folder.join(name).join("mod.rs"));
        Child { file: if alone.exists() { alone } else { nested }, folder: folder.join(name), module }
    }

    /// A module with `#[path]`.
    fn at(module: Module, file: PathBuf) -> Child {
        Child { folder: file.parent().map(Path::to_owned).unwrap_or_default(), file, module }
    }
}

/// Collects the paths and the child modules of one file.
struct Paths<'r> {
    file: &'r Path,
    module: Module,
    folder: PathBuf,
    reader: &'r mut Reader,
    children: Vec<Child>,
}

impl Paths<'_> {
    fn add(&mut self, segments: Vec<String>, at: LineColumn, is_doc: bool) {
        if matches!(segments[0].as_str(), "crate" | "self" | "super") {
            let (file, from) = (self.file.to_owned(), self.module.clone());
            self.reader.found.push(Found { file, line: at.line, from, segments, is_doc });
        }
    }

    /// Adds every path of a `use` declaration.
    fn add_tree(&mut self, tree: &syn::UseTree, before: &[String]) {
        let add = |paths: &mut Self, ident: &syn::Ident| {
            let segments = before.iter().cloned().chain([ident.to_string()]).collect();
            paths.add(segments, ident.span().start(), false);
        };
        match tree {
            syn::UseTree::Path(path) => {
                let segments: Vec<_> = before.iter().cloned().chain([path.ident.to_string()]).collect();
                self.add_tree(&path.tree, &segments);
            }
            syn::UseTree::Name(name) => add(self, &name.ident),
            syn::UseTree::Rename(rename) => add(self, &rename.ident),
            syn::UseTree::Glob(glob) => {
                let segments = before.iter().cloned().chain(["*".to_owned()]).collect();
                self.add(segments, glob.star_token.spans[0].start(), false);
            }
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.add_tree(tree, before)),
        }
    }

    /// Adds the paths in the arguments of a macro, which are tokens without a syntax tree.
    fn add_tokens(&mut self, tokens: TokenStream) {
        let mut path: Option<(Vec<String>, LineColumn)> = None;
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => match &mut path {
                    Some((segments, _)) if colons == 2 => segments.push(ident.to_string()),
                    _ => {
                        self.add_if(path.take());
                        path = Some((vec![ident.to_string()], ident.span().start()));
                    }
                },
                TokenTree::Punct(punct) if punct.as_char() == ':' => {
                    colons += 1;
                    continue;
                }
                other => {
                    self.add_if(path.take());
                    if let TokenTree::Group(group) = other {
                        self.add_tokens(group.stream());
                    }
                }
            }
            colons = 0;
        }
        self.add_if(path);
    }

    fn add_if(&mut self, path: Option<(Vec<String>, LineColumn)>) {
        if let Some((segments, at)) = path {
            self.add(segments, at, false);
        }
    }

    /// Adds the paths in a line of documentation.
    fn add_doc(&mut self, text: &str, at: LineColumn) {
        let is_part = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == ':';
        for word in text.split(|letter| !is_part(letter)).filter(|word| word.contains("::")) {
            let segments =
                word.split("::").filter(|segment| !segment.is_empty()).map(str::to_owned).collect::<Vec<_>>();
            if !segments.is_empty() {
                self.add(segments, at, true);
            }
        }
    }
}

impl<'a> Visit<'a> for Paths<'_> {
    fn visit_item_use(&mut self, item: &'a syn::ItemUse) {
        self.add_tree(&item.tree, &[]);
        visit::visit_item_use(self, item);
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        if path.leading_colon.is_none()
            && let Some(first) = path.segments.first()
        {
            let segments = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
            self.add(segments, first.ident.span().start(), false);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'a syn::Macro) {
        self.add_tokens(call.tokens.clone());
        visit::visit_macro(self, call);
    }

    fn visit_attribute(&mut self, attribute: &'a syn::Attribute) {
        match &attribute.meta {
            syn::Meta::NameValue(pair) if pair.path.is_ident("doc") => {
                if let syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) = &pair.value {
                    self.add_doc(&text.value(), text.span().start());
                }
            }
            syn::Meta::List(list) => self.add_tokens(list.tokens.clone()),
            _ => {}
        }
    }

    fn visit_item_mod(&mut self, item: &'a syn::ItemMod) {
        let name = item.ident.to_string();
        let module: Module = self.module.iter().cloned().chain([name.clone()]).collect();
        if item.content.is_none() {
            let file = item.attrs.iter().find_map(path_attribute);
            self.children.push(match file {
                Some(file) => Child::at(module, self.file.with_file_name(file)),
                None => Child::find(module, &self.folder),
            });
            item.attrs.iter().for_each(|attribute| self.visit_attribute(attribute));
            return;
        }
        self.reader.modules.insert(module.clone());
        let (outer, folder) = (std::mem::replace(&mut self.module, module), self.folder.clone());
        self.folder.push(name);
        visit::visit_item_mod(self, item);
        (self.module, self.folder) = (outer, folder);
    }
}

fn path_attribute(attribute: &syn::Attribute) -> Option<String> {
    match &attribute.meta {
        syn::Meta::NameValue(pair) if pair.path.is_ident("path") => match &pair.value {
            syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) => Some(text.value()),
            _ => None,
        },
        _ => None,
    }
}
