# A todo application on Django with bemi-django, in one file: `migrate`, `requests '[["POST", "/todos", {...}], ...]'`,
# `changes`, which reads them with the package's own model.
import json
import os
import sys
from urllib.parse import urlsplit

import django
from django.conf import settings

url = urlsplit(os.environ["DATABASE_URL"])
sys.modules["app"] = sys.modules["__main__"]
settings.configure(
    SECRET_KEY="test",
    ALLOWED_HOSTS=["*"],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": url.path[1:],
            "USER": os.environ.get("DATABASE_USER", url.username),
            "HOST": url.hostname,
            "PORT": url.port,
            "OPTIONS": json.loads(os.environ.get("DATABASE_OPTIONS", "{}")),
        }
    },
    INSTALLED_APPS=["bemi"],
    MIDDLEWARE=["bemi.BemiMiddleware"],
    ROOT_URLCONF="app",
    BEMI_CONTEXT_FUNCTION="app.bemi_context",
    USE_TZ=True,
)
django.setup()

from bemi import BemiRecordMixin  # noqa: E402
from bemi.models import BemiChange  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connection, models, transaction  # noqa: E402
from django.http import JsonResponse  # noqa: E402
from django.test import Client  # noqa: E402
from django.urls import path  # noqa: E402


class Todo(BemiRecordMixin, models.Model):
    task = models.TextField()
    is_completed = models.BooleanField(default=False)

    class Meta:
        app_label = "todos"
        db_table = "todos"
        managed = False


def bemi_context(request):
    return {"email": request.headers["x-email"], "path": request.get_full_path(), "method": request.method}


def todos(request):
    body = json.loads(request.body)
    how = body.get("how", "create")
    if how == "create":
        Todo.objects.create(task=body["task"])
    elif how == "update":
        Todo.objects.filter(task=body["task"]).update(is_completed=True)
    elif how == "delete":
        Todo.objects.filter(task=body["task"]).delete()
    elif how == "bulk":
        Todo.objects.bulk_create([Todo(task=task) for task in body["task"]])
    elif how == "raw":
        with connection.cursor() as cursor:
            cursor.execute(body["sql"])
    elif how == "many":
        with connection.cursor() as cursor:
            cursor.executemany("INSERT INTO todos (task) VALUES (%s)", [[task] for task in body["task"]])
    elif how == "undone":
        with transaction.atomic():
            Todo.objects.create(task=body["task"])
            transaction.set_rollback(True)
    return JsonResponse({})


urlpatterns = [path("todos", todos)]


def requests(plan):
    client = Client()
    for email, target, body in json.loads(plan):
        response = client.generic("POST", target, json.dumps(body), headers={"x-email": email})
        assert response.status_code == 200, response.content


def changes(email, task):
    mine = BemiChange.objects.context({"email": email})
    todo = Todo.objects.get(task=task)
    print(json.dumps({
        "contains": [[c.operation, c.table, c.primary_key, c.after.get("task")] for c in BemiChange.objects.filter(context__contains={"email": email})],
        "path": list(mine.order_by("-committed_at").values_list("context__path", flat=True)),
        "not": BemiChange.objects.context_not({"email": email}).count(),
        "before": BemiChange.objects.before({"is_completed": False}).updated().count(),
        "record": [[c.operation, c.diff()] for c in todo.bemi_changes()],
        "field": [c.operation for c in BemiChange.objects.field_changed("todos", todo.pk, "is_completed").updated()],
        "total": BemiChange.objects.count(),
    }))


command, *arguments = sys.argv[1:]
if command == "migrate":
    call_command("migrate", "bemi", verbosity=0)
else:
    {"requests": requests, "changes": changes}[command](*arguments)
