//! Does a program, in any language, do what an answer's table of calls says?
//!
//! This is the kit; each answer's table of calls and its cases are in its own `src/cases/`. In reading order: a
//! [`case`] tries one promise of the table, a [`target`] is the program under test, [`expect`] describes what is wrong,
//! [`http`] and [`bodies`] hold the promises of every answer, [`run`] runs a suite and counts, [`program`] kills and
//! starts the reader's program, [`killing`] does so under load, [`calls`] shows the table, and [`words`] is the command
//! line.

pub mod case;
pub mod target;
pub mod expect;
pub mod http;
pub mod bodies;
pub mod run;
pub mod program;
pub mod killing;
pub mod calls;
pub mod words;
