//! Which databases of other processes are dropped? Those that a killed process left, and those with our mark and a
//! random name that are older than a day.

use super::{
    admin::{Admin, Comment},
    mark::{Kind, kind_of},
};
use crate::{
    Service,
    claim::{DAY, left_behind},
};

/// Drops the databases that no process uses any more.
pub(super) async fn clean(server: &str) -> anyhow::Result<()> {
    let mut admin = Admin::connect(server).await?;
    for (claim, name) in left_behind::<String>(Service::Postgres, server)? {
        // In this order: a database that comes after the second question was still to come at the first.
        let may_still_come = admin.may_still_come(&name).await?;
        let comment = admin.comment(&name).await?;
        if comment.is_none() && may_still_come {
            // The claim stays for the next process.
            continue;
        }
        if !was_left(&name, comment) || admin.drop_or_warn(&name).await {
            claim.release();
        }
    }
    for (name, mark) in admin.marked().await? {
        let random = kind_of(&name).is_some() && mark.kind != Kind::Kept;
        if random && mark.is_older_than(DAY, admin.now) {
            admin.drop_or_warn(&name).await;
        }
    }
    admin.close().await
}

/// Whether a dead process wrote down this name, made the database, and no other process can use it.
fn was_left(name: &str, comment: Option<Comment>) -> bool {
    // The process may have died before it could write the mark. A spare with its mark is complete, so others can use
    // it.
    matches!(
        (kind_of(name), comment),
        (Some(Kind::Fresh), Some(Comment::None | Comment::Ours(_)))
            | (Some(Kind::Spare), Some(Comment::None))
    )
}

#[cfg(test)]
mod tests {
    use super::{super::mark::Mark, *};

    #[test]
    fn a_dead_process_left_what_is_half_made_and_what_it_alone_used() {
        let digits = "0123456789abcdef";
        let ours =
            |kind| Some(Comment::Ours(Mark { kind, of: "some".to_owned(), made: 0, schema: None }));
        for (name, comment, left) in [
            (format!("worked_answers_fresh_{digits}"), ours(Kind::Fresh), true),
            (format!("worked_answers_fresh_{digits}"), Some(Comment::None), true),
            (format!("worked_answers_spare_{digits}"), Some(Comment::None), true),
            (format!("worked_answers_spare_{digits}"), ours(Kind::Spare), false),
            (format!("worked_answers_fresh_{digits}"), Some(Comment::Foreign), false),
            (format!("worked_answers_fresh_{digits}"), None, false),
            ("shop".to_owned(), Some(Comment::None), false),
            ("shop_some".to_owned(), ours(Kind::Kept), false),
        ] {
            assert_eq!(was_left(&name, comment), left, "{name}");
        }
    }
}
