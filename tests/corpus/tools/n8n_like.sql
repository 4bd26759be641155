CREATE TABLE "workflow_entity" ("id" varchar(36) PRIMARY KEY NOT NULL, "name" varchar(128) NOT NULL, "active" boolean NOT NULL, "nodes" text, "createdAt" datetime(3) NOT NULL DEFAULT '2024-01-01 00:00:00.000');
INSERT INTO "workflow_entity"("id", "name", "active", "nodes") VALUES ('a', 'n', 0, '[{"type":"x;"}]');
CREATE INDEX "IDX_workflow_name" ON "workflow_entity" ("name") ;
ALTER TABLE "workflow_entity" ADD COLUMN "versionId" char(36);
UPDATE "workflow_entity" SET "versionId" = 'v-' || id;
CREATE TABLE "workflows_tags" ("workflowId" varchar(36) NOT NULL, "tagId" integer NOT NULL, CONSTRAINT "PK_workflows_tags" PRIMARY KEY ("workflowId", "tagId"), CONSTRAINT "FK_workflows_tags_workflow_entity" FOREIGN KEY ("workflowId") REFERENCES "workflow_entity" ("id") ON DELETE CASCADE);
