CREATE /* what */ TABLE /* of */ a /* which */ ( -- open
  x /* first */ INTEGER, -- one
  /* second */ y TEXT -- two
) /* close */ ; /* after */
INSERT /* ; */ INTO a -- ;
VALUES /* ' */ (1, '/* no comment */'), (2, '-- nor this');
