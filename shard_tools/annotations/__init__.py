"""Labels of shots as data sets distribute them."""
