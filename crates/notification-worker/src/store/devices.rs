//! Which devices does a user have, and which of them have a job already?

use super::Store;
use crate::{
    error::Error,
    ids::{DeviceToken, UserId},
};

impl Store {
    /// Adds a device; one that is there stays.
    pub async fn add_device(&self, user: &UserId, token: &DeviceToken) -> Result<(), Error> {
        self.database
            .within(async |connection| {
                sqlx::query(
                    "insert into devices (user_id, token) values ($1, $2) on conflict do nothing",
                )
                .bind(user)
                .bind(token)
                .execute(connection)
                .await
            })
            .await?;
        Ok(())
    }

    /// Removes a device, if it is there.
    pub async fn remove_device(&self, user: &UserId, token: &DeviceToken) -> Result<(), Error> {
        self.database
            .within(async |connection| {
                sqlx::query("delete from devices where user_id = $1 and token = $2")
                    .bind(user)
                    .bind(token)
                    .execute(connection)
                    .await
            })
            .await?;
        Ok(())
    }

    /// The devices of a user that do not have this job yet, and whether any has.
    pub async fn devices_left(
        &self,
        job_id: &str,
        user: &UserId,
    ) -> Result<(Vec<DeviceToken>, bool), Error> {
        self.database
            .within(async |connection| {
                sqlx::query_as(
                    r#"
                    select
                        array(
                            select token
                            from devices
                            where user_id = $2
                                and not exists (
                                    select
                                    from pushes
                                    where pushes.job_id = $1
                                        and pushes.token = devices.token
                                )
                            order by created_at
                        ),
                        exists (select from pushes where job_id = $1)
                    "#,
                )
                .bind(job_id)
                .bind(user)
                .fetch_one(connection)
                .await
                .map(|(tokens, any): (Vec<DeviceToken>, bool)| (tokens, any))
            })
            .await
    }

    /// This device has this job.
    pub async fn pushed(&self, job_id: &str, token: &DeviceToken) -> Result<(), Error> {
        self.database
            .within(async |connection| {
                sqlx::query(
                    "insert into pushes (job_id, token) values ($1, $2) on conflict do nothing",
                )
                .bind(job_id)
                .bind(token)
                .execute(connection)
                .await
            })
            .await?;
        Ok(())
    }
}
