//! Where passphrases come from: a file, the environment, or the terminal, without an echo.

use std::{
    fs::File,
    io::{Read, Write},
    path::PathBuf,
};

use age::secrecy::{ExposeSecret, SecretString};
use clap::Args;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::cli::{
    failure::{Doing, Exit, Failure, Result},
    profile::read,
};

const VARIABLE: &str = "CONSIGN_PASSPHRASE";
const FILE_BYTES: u64 = 4096;
const TERMINAL: &str = "/dev/tty";
const INTERRUPT: u8 = 3;
const END: u8 = 4;
const BACKSPACE: u8 = 8;
const DELETE: u8 = 127;
const ERASE_LINE: u8 = 21;

/// For commands that sign.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct PassphraseArgs {
    /// The passphrase of a key that has one: the first line of this file. Without it: $CONSIGN_PASSPHRASE, then the
    /// terminal
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

/// Never printed, and wiped when it is dropped.
pub(crate) type Passphrase = SecretString;

impl PassphraseArgs {
    /// The passphrase of an existing key.
    pub(crate) fn of(&self, key: &str) -> Result<Passphrase> {
        match self.given()? {
            Some(passphrase) => Ok(passphrase),
            None => ask(&format!("passphrase of {key}: "), no_terminal),
        }
    }

    /// A new one: on a terminal it is asked for twice, since nobody sees what was typed.
    pub(crate) fn new_for(&self, key: &str) -> Result<Passphrase> {
        let passphrase = match self.given()? {
            Some(passphrase) => passphrase,
            None => {
                let first = ask(&format!("new passphrase for {key}: "), no_terminal)?;
                let second = ask("the same again: ", no_terminal)?;
                if first.expose_secret() != second.expose_secret() {
                    return Err(
                        Failure::new("the two passphrases differ").next("nothing was written; try again")
                    );
                }
                first
            }
        };
        if passphrase.expose_secret().is_empty() {
            return Err(Failure::new("an empty passphrase protects nothing"));
        }
        Ok(passphrase)
    }

    fn given(&self) -> Result<Option<Passphrase>> {
        let text = match (&self.passphrase_file, std::env::var(VARIABLE)) {
            (Some(path), _) => {
                let bytes = read(path, FILE_BYTES)?;
                String::from_utf8(bytes)
                    .map_err(|_| Failure::new(format!("{} is not UTF-8", path.display())))?
            }
            (None, Ok(text)) => text,
            (None, Err(_)) => return Ok(None),
        };
        let line = text.lines().next().unwrap_or_default().to_owned();
        drop(SecretString::from(text));
        Ok(Some(line.into()))
    }
}

/// One line from the terminal, without an echo, whatever stdin and stdout are. `without`: what to say where there is none.
pub(crate) fn ask(question: &str, without: impl Fn() -> Failure) -> Result<Passphrase> {
    let open = || File::options().read(true).write(true).open(TERMINAL).map_err(|_| without());
    let mut terminal = open()?;
    let silence = Silence::on(open()?)?;
    terminal.write_all(question.as_bytes()).doing(|| "the terminal".into())?;
    let line = read_line(&mut terminal);
    drop(silence);
    drop(terminal.write_all(b"\n"));
    line
}

fn no_terminal() -> Failure {
    Failure::new("a key has a passphrase, and there is no terminal to ask for it")
        .next(format!("give --passphrase-file FILE, or ${VARIABLE}"))
}

fn read_line(terminal: &mut impl Read) -> Result<Passphrase> {
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        let length = terminal.read(&mut byte).doing(|| "failed to read from the terminal".into())?;
        match byte {
            _ if length == 0 => break,
            [b'\n' | b'\r' | END] => break,
            [INTERRUPT] => return Err(Failure { exit: Exit::Interrupted, ..Failure::new("interrupted") }),
            [BACKSPACE | DELETE] => erase(&mut line),
            [ERASE_LINE] => line.clear(),
            [other] => line.push(other),
        }
    }
    String::from_utf8(line).map(Into::into).map_err(|_| Failure::new("the passphrase is not UTF-8"))
}

/// The last character, which may have several bytes.
fn erase(line: &mut Vec<u8>) {
    while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
}

/// The terminal shows nothing, and Ctrl-C comes as a byte, so that nothing leaves it in this state.
struct Silence {
    terminal: File,
    before: Termios,
}

impl Silence {
    fn on(terminal: File) -> Result<Self> {
        let doing = || "failed to silence the terminal".to_owned();
        let before = tcgetattr(&terminal).doing(doing)?;
        let mut silent = before.clone();
        silent.local_modes -= LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ICANON | LocalModes::ISIG;
        tcsetattr(&terminal, OptionalActions::Flush, &silent).doing(doing)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        // The terminal is gone, then.
        let _ = tcsetattr(&self.terminal, OptionalActions::Flush, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(bytes: &[u8]) -> Result<String> {
        read_line(&mut &*bytes).map(|passphrase| passphrase.expose_secret().to_owned())
    }

    #[test]
    fn a_line_is_edited_as_people_expect() {
        assert_eq!(typed(b"correct horse\n").unwrap(), "correct horse");
        assert_eq!(typed("caf\u{e9}\x7f\x7fx\r".as_bytes()).unwrap(), "cax");
        assert_eq!(typed(b"wrong\x15right").unwrap(), "right");
        assert_eq!(typed(b"\x7f\x7f\n").unwrap(), "");
        assert_eq!(typed(b"half\x03").unwrap_err().exit, Exit::Interrupted);
        assert!(typed(b"\xff\n").is_err());
    }

    #[test]
    fn a_file_gives_its_first_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passphrase");
        std::fs::write(&path, "correct horse\r\nand more\n").unwrap();
        let args = PassphraseArgs { passphrase_file: Some(path.clone()) };
        assert_eq!(args.of("key").unwrap().expose_secret(), "correct horse");
        assert!(!format!("{:?}", args.of("key").unwrap()).contains("horse"));
        std::fs::write(&path, "\n").unwrap();
        assert!(args.new_for("key").unwrap_err().what.contains("protects nothing"));
    }
}
