//! What is dropped that somebody else made? What a killed process left, and what bears our mark and is a day old.

use super::{
    admin::{Admin, Comment},
    mark::{Kind, kind_of},
};
use crate::{
    Service,
    claim::{DAY, left_behind},
};

/// Drops what nobody uses any more.
pub(super) async fn clean(server: &str) -> anyhow::Result<()> {
    let mut admin = Admin::connect(server).await?;
    for (claim, name) in left_behind::<String>(Service::Postgres, server)? {
        let comment = admin.comment(&name).await?;
        if !was_left(&name, comment) || drop(&mut admin, &name).await {
            claim.release();
        }
    }
    let now = admin.now().await?;
    for (name, mark) in admin.marked().await? {
        let random = kind_of(&name).is_some() && mark.kind != Kind::Kept;
        if random && mark.is_older_than(DAY, now) {
            drop(&mut admin, &name).await;
        }
    }
    admin.close().await
}

/// Whether it is gone. One that cannot be dropped must not keep a new run from its work.
async fn drop(admin: &mut Admin, name: &str) -> bool {
    let dropped = admin.drop(name).await;
    if let Err(error) = &dropped {
        tracing::warn!(%error, name, "a database of an old run stays");
    }
    dropped.is_ok()
}

/// Whether a dead process left this database, whose random name it had written down, to nobody.
fn was_left(name: &str, comment: Option<Comment>) -> bool {
    // The process may have died before it could write the mark. A spare that has its mark is whole, and of use to others.
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
            // It was to become a template or a kept database, or was just taken from the spares.
            (format!("worked_answers_fresh_{digits}"), ours(Kind::Kept), true),
            (format!("worked_answers_fresh_{digits}"), ours(Kind::Spare), true),
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
