//! How does a listing open in the reader's own editor? By a command without a shell, for editors with a window of their
//! own. An editor that needs a terminal is never started: the guide's terminal is not its own.

use std::{ffi::OsString, path::Path, process::Stdio};

use anyhow::Context;
use tokio::process::Command;

/// An editor that opens a file at a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Editor {
    program: OsString,
    /// What the reader's variable says after the program.
    words: Vec<String>,
    place: Place,
}

/// How an editor is told a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// `--goto FILE:LINE`
    Goto,
    /// `FILE:LINE`
    Colon,
    /// `+LINE FILE`
    Plus,
    /// `--line LINE FILE`
    Line,
}

impl Editor {
    /// The editor that `$VISUAL` or `$EDITOR` names.
    pub fn of_environment() -> Option<Self> {
        let named = |name| Self::parse(&std::env::var(name).ok()?);
        named("VISUAL").or_else(|| named("EDITOR"))
    }

    /// Reads such a variable: `code --wait`. Nothing if we do not know the editor, or if it needs a terminal.
    pub fn parse(variable: &str) -> Option<Self> {
        let mut words = variable.split_whitespace();
        let program = words.next()?;
        let words: Vec<_> = words.map(str::to_owned).collect();
        let place = match Path::new(program).file_name()?.to_str()? {
            "code" | "code-insiders" | "codium" | "cursor" | "windsurf" => Place::Goto,
            "zed" | "zeditor" | "subl" => Place::Colon,
            "gvim" | "mvim" | "gedit" => Place::Plus,
            // It asks an Emacs that runs already. Without `-n` or `-c` that is one in a terminal as often as not.
            "emacsclient" if words.iter().any(|it| ["-n", "-c", "-nc", "-cn"].contains(&&**it)) => {
                Place::Plus
            }
            "kate" | "idea" | "clion" | "rustrover" => Place::Line,
            _ => return None,
        };
        Some(Self { program: program.into(), words, place })
    }

    /// The program's name, for a button.
    pub fn name(&self) -> String {
        let name = Path::new(&self.program).file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    fn arguments(&self, file: &Path, line: usize) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = self.words.iter().map(Into::into).collect();
        let file = file.as_os_str().to_owned();
        let mut with_line = file.clone();
        with_line.push(format!(":{line}"));
        match self.place {
            Place::Goto => arguments.extend(["--goto".into(), with_line]),
            Place::Colon => arguments.push(with_line),
            Place::Plus => arguments.extend([format!("+{line}").into(), file]),
            Place::Line => {
                arguments.extend(["--line".into(), line.to_string().into(), file]);
            }
        }
        arguments
    }

    /// Opens a file at a line. The editor outlives the guide; Tokio reaps it if it ends before.
    pub fn open(&self, file: &Path, line: usize) -> anyhow::Result<()> {
        let mut command = Command::new(&self.program);
        command.args(self.arguments(file, line));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().with_context(|| format!("{} cannot be started", self.name()))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_editor_is_told_the_line_in_its_own_way() {
        for (variable, arguments) in [
            ("code --wait", "--wait --goto /a b/c.rs:7"),
            ("/opt/zed", "/a b/c.rs:7"),
            ("gvim -f", "-f +7 /a b/c.rs"),
            ("emacsclient -n", "-n +7 /a b/c.rs"),
            ("rustrover", "--line 7 /a b/c.rs"),
        ] {
            let editor = Editor::parse(variable).unwrap();
            let words = editor.arguments(Path::new("/a b/c.rs"), 7);
            let words: Vec<_> = words.iter().map(|it| it.to_str().unwrap()).collect();
            assert_eq!(words.join(" "), arguments, "{variable}");
        }
    }

    #[test]
    fn an_editor_of_the_terminal_is_none_for_a_page() {
        for variable in ["vim", "nvim -f", "nano", "hx", "emacs -nw", "emacsclient -t", "sh -c", ""]
        {
            assert_eq!(Editor::parse(variable), None, "{variable}");
        }
    }
}
