//! Which modules does a crate have, and what does each of them name? We read the source with `syn`, without the code
//! for unit tests (`#[cfg(test)]`): a test may name anything.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use proc_macro2::{TokenStream, TokenTree};
use syn::{
    Attribute, Ident, Item, ItemUse, Macro, UseTree,
    visit::{self, Visit},
};

/// A module's names from the crate's root: `["store", "clicks"]`. The root itself has none.
pub type ModulePath = Vec<String>;

/// One crate: a library, a program or a test binary.
pub struct Crate {
    /// Its name and its root: `lab (src/lib.rs)`.
    pub name: String,
    /// Its modules by their paths.
    pub modules: BTreeMap<ModulePath, Module>,
}

/// One module of a crate.
#[derive(Default)]
pub struct Module {
    /// Where it is written.
    pub file: PathBuf,
    /// What `use` binds here: the short name, and the path that it stands for.
    imports: HashMap<String, Vec<String>>,
    /// Every path that is named here, as it is written, with its line.
    paths: Vec<(Vec<String>, usize)>,
}

/// Where a path leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// To this module of the same crate, or to something in it.
    Module(ModulePath),
    /// Out of the crate. The first name is another crate, a type of this module or a local variable.
    Outside(String),
}

/// A place in a crate that names another place.
pub struct Mention {
    /// The module that names it.
    pub from: ModulePath,
    /// The place that it names.
    pub to: Place,
    /// `crates/lab/src/serve.rs:21`
    pub at: String,
}

impl Crate {
    /// Reads the crate with this root: `src/lib.rs`, `src/main.rs`, `tests/rules/main.rs`.
    pub fn read(package: &str, root: &Path) -> anyhow::Result<Self> {
        let mut modules = BTreeMap::new();
        read_file(root, Vec::new(), &mut modules)?;
        let target = root.components().rev().take(2).collect::<Vec<_>>();
        let target: PathBuf = target.into_iter().rev().collect();
        Ok(Self { name: format!("{package} ({})", target.display()), modules })
    }

    /// Everything that its modules name.
    pub fn mentions(&self) -> Vec<Mention> {
        let mut mentions = Vec::new();
        for (from, module) in &self.modules {
            for (path, line) in &module.paths {
                let at = format!("{}:{line}", module.file.display());
                mentions.push(Mention { from: from.clone(), to: self.resolve(from, path, 0), at });
            }
        }
        mentions
    }

    /// Follows a path as the compiler does: through submodules, imports and re-exports.
    fn resolve(&self, from: &[String], path: &[String], followed: usize) -> Place {
        let (first, mut rest) = path.split_first().expect("a path has a name");
        let mut here = match first.as_str() {
            "crate" => Vec::new(),
            "self" => from.to_vec(),
            "super" => parent(from),
            name if self.bound(from, name) => {
                rest = path;
                from.to_vec()
            }
            _ => return Place::Outside(first.clone()),
        };
        while let Some((name, further)) = rest.split_first() {
            if name == "super" {
                here = parent(&here);
            } else if self.modules.contains_key(&inside(&here, name)) {
                here = inside(&here, name);
            } else if let Some(import) = self.modules[&here].imports.get(name) {
                // `use self::a::a` and the like bind a name to itself; nothing is that deep.
                if followed > 20 {
                    break;
                }
                let path = [import, further].concat();
                return self.resolve(&here, &path, followed + 1);
            } else {
                // A function, a type, a constant: it is written here.
                break;
            }
            rest = further;
        }
        Place::Module(here)
    }

    /// Whether a name means a submodule or an import here.
    fn bound(&self, here: &[String], name: &str) -> bool {
        self.modules.contains_key(&inside(here, name))
            || self.modules[here].imports.contains_key(name)
    }
}

fn parent(path: &[String]) -> ModulePath {
    path[..path.len().saturating_sub(1)].to_vec()
}

fn inside(path: &[String], name: &str) -> ModulePath {
    [path, &[name.to_owned()]].concat()
}

/// Reads a module's file, and those of its submodules.
fn read_file(
    file: &Path,
    path: ModulePath,
    modules: &mut BTreeMap<ModulePath, Module>,
) -> anyhow::Result<()> {
    let source = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let syntax = syn::parse_file(&source).with_context(|| file.display().to_string())?;
    let owns_its_folder = path.is_empty() || file.ends_with("mod.rs");
    let folder = if owns_its_folder { file.with_file_name("") } else { file.with_extension("") };
    read_items(&syntax.items, file, &folder, path, modules)
}

/// Reads a module's items. Its submodules have their files in `folder`.
fn read_items(
    items: &[Item],
    file: &Path,
    folder: &Path,
    path: ModulePath,
    modules: &mut BTreeMap<ModulePath, Module>,
) -> anyhow::Result<()> {
    let file_below_root = file.strip_prefix(lab::stack::workspace()).unwrap_or(file);
    let mut module = Module { file: file_below_root.to_owned(), ..Module::default() };
    for item in items {
        let Item::Mod(inner) = item else {
            module.visit_item(item);
            continue;
        };
        if is_test(&inner.attrs) {
            continue;
        }
        let name = inner.ident.to_string();
        let path = inside(&path, &name);
        if let Some((_, items)) = &inner.content {
            read_items(items, file, &folder.join(name), path, modules)?;
        } else {
            let own = folder.join(&name).with_extension("rs");
            let in_folder = folder.join(&name).join("mod.rs");
            read_file(if own.exists() { &own } else { &in_folder }, path, modules)?;
        }
    }
    modules.insert(path, module);
    Ok(())
}

/// Whether an item is compiled for unit tests only.
fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<Ident>().is_ok_and(|condition| condition == "test")
    })
}

impl<'ast> Visit<'ast> for Module {
    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        if item.leading_colon.is_none() {
            self.import(&item.tree, &[]);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none() {
            self.name(path.segments.iter().map(|segment| &segment.ident));
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast Macro) {
        self.visit_path(&call.path);
        self.tokens(call.tokens.clone());
    }

    /// `pub(in crate::stack)` and `#[serde(default)]` use nothing of what they name.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}
    fn visit_attribute(&mut self, _: &'ast Attribute) {}
}

impl Module {
    /// `use a::{b, c::{self, d as e}}`, one name at a time.
    fn import(&mut self, tree: &UseTree, before: &[&Ident]) {
        let and = |ident| [before, &[ident]].concat();
        match tree {
            UseTree::Path(tree) => self.import(&tree.tree, &and(&tree.ident)),
            UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.import(tree, before));
            }
            UseTree::Name(name) if name.ident == "self" => {
                self.bind(before.last().expect("`self` is in braces"), before);
            }
            UseTree::Name(name) => self.bind(&name.ident, &and(&name.ident)),
            UseTree::Rename(name) if name.ident == "self" => self.bind(&name.rename, before),
            UseTree::Rename(name) => self.bind(&name.rename, &and(&name.ident)),
            UseTree::Glob(_) => self.name(before.iter().copied()),
        }
    }

    fn bind(&mut self, name: &Ident, path: &[&Ident]) {
        let words = path.iter().map(ToString::to_string).collect();
        self.imports.insert(name.to_string(), words);
        self.name(path.iter().copied());
    }

    /// Notes a path, unless it is a single name: that is something local, or an import that is noted already.
    fn name<'i>(&mut self, path: impl Iterator<Item = &'i Ident>) {
        let path: Vec<_> = path.collect();
        if let [first, _, ..] = path[..] {
            let line = first.span().start().line;
            self.paths.push((path.iter().map(ToString::to_string).collect(), line));
        }
    }

    /// Finds `a::b::c` among the tokens of a macro call, which `syn` does not parse.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<Ident> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == ':' => {
                    colons += 1;
                    continue;
                }
                TokenTree::Ident(ident) if colons == 2 => path.push(ident),
                TokenTree::Ident(ident) => {
                    self.name(path.iter());
                    path = vec![ident];
                }
                other => {
                    self.name(path.iter());
                    path.clear();
                    if let TokenTree::Group(group) = other {
                        self.tokens(group.stream());
                    }
                }
            }
            colons = 0;
        }
        self.name(path.iter());
    }
}
