"""One HTML file that shows films, their scenes and their scores; it loads nothing, all images are inside.

    films, scores  ->  tables.py, plots.py, films.py  ->  report.html.jinja  ->  report.html
                       (the data of the page)             (its HTML)            + report.css, report.js
Read `page` first: its `write_report` is all that other rooms call. Imports metrics; scenes and segmentation import it.
"""
