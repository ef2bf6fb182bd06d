DROP VIEW v_books;
DROP TABLE books;
