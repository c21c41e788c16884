"""Result cards, tables, figures and the HTML page of a run."""
