"""`dreamontage bench`: what models take and what switches give, counted and measured without any weights."""
