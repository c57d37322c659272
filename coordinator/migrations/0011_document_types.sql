-- The document types that a server's agent says it reads: a JSON list; empty until it says so.
ALTER TABLE servers ADD COLUMN document_types TEXT NOT NULL DEFAULT '[]';
