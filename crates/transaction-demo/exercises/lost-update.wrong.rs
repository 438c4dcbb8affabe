// caught by: lost-update
/// Adds one cent. Between the reading and the writing, a real program would think.
struct Add {
    way: Way,
    id: i32,
}

impl Work for Add {
    type Answer = ();

    async fn run(&self, connection: &mut PgConnection) -> Result<(), Error> {
        let written = match self.way {
            Way::AtomicUpdate => {
                let update = "update counters set cents = cents + 1 where id = $1";
                sqlx::query(update).bind(self.id).execute(connection).await?.rows_affected()
            }
            Way::ReadThenWrite | Way::SerializableWithRetry => {
                let read = sqlx::query_scalar("select cents from counters where id = $1");
                let cents: i64 = read.bind(self.id).fetch_one(&mut *connection).await?;
                write(connection, self.id, cents + 1).await?
            }
            Way::SelectForUpdate => {
                let read =
                    sqlx::query_scalar("select cents from counters where id = $1 for update");
                let cents: i64 = read.bind(self.id).fetch_one(&mut *connection).await?;
                write(connection, self.id, cents + 1).await?
            }
            Way::OptimisticVersion => {
                let read = sqlx::query_as("select cents, version from counters where id = $1");
                let read: (i64, i64) = read.bind(self.id).fetch_one(&mut *connection).await?;
                write_if_unchanged(connection, self.id, read.0 + 1, read.1).await?
            }
        };
        // The version is another: somebody was faster. Again, from the reading on.
        if written == 0 { Err(Error::Contended) } else { Ok(()) }
    }
}

async fn write(connection: &mut PgConnection, id: i32, cents: i64) -> Result<u64, Error> {
    let update = sqlx::query("update counters set cents = $2 where id = $1").bind(id).bind(cents);
    Ok(update.execute(connection).await?.rows_affected())
}

async fn write_if_unchanged(
    connection: &mut PgConnection,
    id: i32,
    cents: i64,
    version: i64,
) -> Result<u64, Error> {
    // The mistake: the version is looked at first and then written, and between the two it changes.
    let read = sqlx::query_scalar("select version from counters where id = $1").bind(id);
    let now: i64 = read.fetch_one(&mut *connection).await?;
    if now != version {
        return Ok(0);
    }
    let update = sqlx::query("update counters set cents = $2, version = $3 where id = $1");
    let update = update.bind(id).bind(cents).bind(version + 1);
    Ok(update.execute(connection).await?.rows_affected())
}
