;;; CREATE TABLE a(x);;
; -- nothing
;
/* nothing */ ;
INSERT INTO a VALUES (1);;;
