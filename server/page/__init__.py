"""A place for people to look: one page over HTTP that shows montages, jobs and videos. It changes nothing."""
