"""One HTML file that shows films, their scenes and their scores; it loads nothing, all images are inside.

    films, scores  ->  tables.py, plots.py, films.py  ->  report.html.jinja  ->  report.html
                       (the data of the page)             (its HTML)            + report.css, report.js
Door: `page.write_report`.
"""
