// caught by: calls::
    /// What was answered the first time, if this is that again.
    fn answer(self, key: &str) -> Answer {
        match self.action_key {
            Some(first) if first != key => {
                Answer::Refused("this order has had this step under another key".to_owned())
            }
            Some(_) if self.is_same != Some(true) => Answer::KeyReused,
            // The mistake: a row without a refusal was done. It may be the mark of a refund that came before its
            // charge: the saga then believes that it was paid.
            _ => self.refusal.map_or(Answer::Done, Answer::Refused),
        }
    }
