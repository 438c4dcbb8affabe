//! Does a program do what an answer's table of calls says, whoever wrote it, in whichever language?
//!
//! This is the kit; each answer's table of calls and its cases are in its own `src/cases/`. In reading order: a [`case`]
//! tries one promise of the table, a [`target`] is the program that is tried, [`expect`] puts into words what is wrong,
//! [`http`] and [`bodies`] hold what every answer promises, [`run`] tries a suite and counts, [`program`] kills and starts the reader's
//! program, [`killing`] does so under load, [`calls`] shows the table, and [`words`] is the command line.

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
